//! The headers of requests and answers, each described once.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{ObjectBuilder, Schema};
use utoipa::openapi::{Ref, RefOr, Required};

use super::super::observe::REQUEST_ID_BYTES_MAX;
use super::schemas;

/// Response headers that an answer may lack where they are documented; the others are always there. A 503 never lacks
/// `Retry-After`; a 409 may.
const SOMETIMES: [&str; 4] = ["Idempotency-Replayed", "Link", "Retry-After", "X-Total-Count"];

/// Codes whose answers have `Retry-After` although their status does not ask for it.
const RETRIED: [&str; 1] = ["rebuild-running"];

/// A request header that may be left out.
pub fn optional(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// `X-Actor`, of at most so many characters.
pub fn actor(chars_max: usize) -> Parameter {
    optional("X-Actor", "Who asks, for the audit trail", printable(chars_max))
}

/// `X-Correlation-Id`, of at most so many characters.
pub fn correlation_id(chars_max: usize) -> Parameter {
    let description = "The conversation that the request belongs to; unless given, the request's id";
    optional("X-Correlation-Id", description, printable(chars_max))
}

/// Printable ASCII, which is what header values may be.
fn printable(chars_max: usize) -> ObjectBuilder {
    schemas::text(chars_max).pattern(Some("^[ -~]*$")).min_length(None)
}

/// The headers that every request may have.
pub(super) fn of_any_request() -> [Parameter; 2] {
    let id = schemas::text(REQUEST_ID_BYTES_MAX).pattern(Some("^[!-~]+$"));
    let trace = schemas::text(55).min_length(Some(55)).pattern(None::<String>);
    let trace = trace.examples(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"]);
    [
        optional("X-Request-Id", "Comes back in the answer; one that cannot be used is replaced", id),
        optional("traceparent", "The trace that the request belongs to (W3C); ignored where malformed", trace),
    ]
}

/// Whether requests of an operation may have a key under which their answer is kept.
pub(super) fn has_key(operation: &Operation) -> bool {
    let named = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(known) if known.name == "Idempotency-Key");
    operation.parameters.iter().flatten().any(named)
}

/// Names the headers of a problem. A refusal for the state, or for what was ordered, is kept under its key.
pub(super) fn of_problem(
    mut response: ResponseBuilder,
    status: u16,
    codes: &BTreeSet<&str>,
    has_key: bool,
) -> ResponseBuilder {
    if has_key && matches!(status, 404 | 409 | 412 | 422) {
        response = response.header("Idempotency-Replayed", Header::default());
    }
    if status == 503 || codes.iter().any(|code| RETRIED.contains(code)) {
        response = response.header("Retry-After", Header::default());
    }
    response
}

/// Makes the headers of a response references, adds those of every answer, and returns the names of all.
pub(super) fn refer(response: &mut Response) -> BTreeSet<String> {
    let of_all = ["Cache-Control", "X-Request-Id"].map(str::to_owned);
    let names: BTreeSet<String> = response.headers.keys().cloned().chain(of_all).collect();
    let reference = |name: &String| RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
    response.headers = names.iter().map(|name| (name.clone(), reference(name))).collect();
    names
}

/// The descriptions of these headers.
pub(super) fn described(used: &BTreeSet<String>) -> BTreeMap<String, RefOr<Header>> {
    const ID: &str = "0192f0c1-6f2e-7cc3-98c4-dc0c0c07398f";
    let text = |example: &str| schemas::anything().examples([example]);
    let all = [
        ("Cache-Control", "How long the answer may be kept", text("no-store")),
        ("ETag", "Names the state that the answer shows", text("\"3\"")),
        ("Idempotency-Replayed", "Whether the key's first request got this answer", schemas::one_of(["true"])),
        ("Link", "The next page, where there is one", text("</orders?cursor=AA>; rel=\"next\"")),
        ("Location", "Where to ask for more about it", text(&format!("/orders/{ID}"))),
        ("Retry-After", "When to ask again, in seconds", schemas::whole(1, 3_600)),
        ("X-Request-Id", "The request's id", text(ID)),
        ("X-Total-Count", "How many there are on all pages, where asked for", text("1234")),
    ];
    let described = all.into_iter().filter(|(name, ..)| used.contains(*name)).map(|(name, description, schema)| {
        let mut header = HeaderBuilder::new().description(Some(description)).schema(Some(schema)).build();
        if !SOMETIMES.contains(&name) {
            header.extensions = Some(Extensions::from_iter([("required", true)]));
        }
        (name.to_owned(), header.into())
    });
    described.collect()
}
