//! What the API's description says beside the handlers' annotations: each route's problems, and the limits of values.

use chassis::http::describe::{Known, complete, headers, schemas};
use domain::ids::{CUSTOMER_ID_CHARS_MAX, SKU_CHARS_MAX};
use domain::order::Status;
use domain::order::decide::QUANTITY_MAX;
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::Object;

use super::fresh::WAIT_MAX;
use super::orders::SORTS;
use super::page::LIMIT_MAX;
use crate::live::place::ID_BYTES_MAX;
use crate::projections::cancellations::REASON_CHARS_MAX;

/// What any question to the read model may meet.
pub(crate) const READ: &[Known] = &[(503, "overloaded"), (503, "not-ready")];
/// An answer that has to include what the caller has seen.
const FRESH: &[Known] = &[(409, "projection-stopped"), (503, "read-model-behind"), (503, "projection-failed")];
/// A list of pages.
const PAGES: &[Known] = &[(400, "invalid-cursor")];
/// A projection that a new program may have to build first.
const BUILT: &[Known] = &[(503, "projection-building")];
/// An order that must exist.
const ORDER: &[Known] = &[(404, "unknown-order")];
/// A moment at which it must have existed.
const MOMENT: &[Known] = &[(404, "unknown-version")];

/// The problems of an operation beside those that follow from its parameters.
fn problems(operation: &str) -> Vec<Known> {
    match operation {
        "list_orders" => [READ, FRESH, PAGES, &[(422, "list-too-long")]].concat(),
        "get_order" => [READ, FRESH, ORDER, MOMENT].concat(),
        "get_order_history" => [READ, FRESH, ORDER].concat(),
        "diff_order" => [READ, ORDER, MOMENT].concat(),
        "get_customer" => [READ, FRESH, BUILT, &[(404, "unknown-customer")]].concat(),
        "list_customers" | "list_daily_sales" | "list_product_demand" | "list_cancellations" => {
            [READ, FRESH, PAGES, BUILT].concat()
        }
        "stream_orders" | "get_projection" | "list_dead_letters" | "list_parked" => READ.to_vec(),
        _ => Vec::new(),
    }
}

/// The document with each route's problems and headers.
pub(super) fn completed(openapi: OpenApi) -> OpenApi {
    complete(openapi, problems)
}

/// The header by which a caller says how long it waits.
pub(super) struct Waits;

impl IntoParams for Waits {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = format!(
            "`wait=SECONDS`: how long to wait for what the caller has seen, at most {} (RFC 7240)",
            WAIT_MAX.as_secs()
        );
        vec![headers::optional("Prefer", &description, schemas::anything().examples(["wait=2"]))]
    }
}

/// The header by which a caller says which state it has.
pub(super) struct Conditional;

impl IntoParams for Conditional {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let description = "The `ETag` of the answer that the caller has: 304 while it holds";
        vec![headers::optional("If-None-Match", description, schemas::anything().examples(["W/\"3\""]))]
    }
}

/// The header by which a stream goes on.
pub(super) struct Resumes;

impl IntoParams for Resumes {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![headers::optional("Last-Event-ID", "Where to go on: the last `id` that came", stream_id())]
    }
}

pub(super) fn stream_id() -> Object {
    let last = "([0-9]+:-?[0-9]+([.][0-9]+)?:[0-9a-fA-F-]+)?";
    let pattern = format!("^(([0-9]+:-?[0-9]+([.][0-9]+)?,?)*;{last})?$");
    schemas::anything().max_length(Some(ID_BYTES_MAX)).pattern(Some(pattern)).build()
}

pub(super) fn sku() -> Object {
    schemas::name(SKU_CHARS_MAX).examples(["prod-1"]).build()
}

pub(super) fn customer_id() -> Object {
    schemas::name(CUSTOMER_ID_CHARS_MAX).examples(["customer-1"]).build()
}

pub(super) fn quantity() -> Object {
    schemas::whole(1, QUANTITY_MAX).build()
}

pub(super) fn currency() -> Object {
    schemas::currency().build()
}

pub(super) fn amount() -> Object {
    schemas::amount().build()
}

pub(super) fn sum() -> Object {
    schemas::sum().build()
}

pub(super) fn decimal() -> Object {
    schemas::decimal().build()
}

pub(super) fn status() -> Object {
    schemas::one_of(Status::ALL.map(Status::as_str)).build()
}

pub(super) fn sort() -> Object {
    schemas::one_of(SORTS.map(|(name, _sort)| name)).build()
}

pub(super) fn reason() -> Object {
    schemas::anything().max_length(Some(REASON_CHARS_MAX)).build()
}

pub(super) fn seen() -> Object {
    schemas::seen().build()
}

pub(crate) fn limit() -> Object {
    schemas::whole(1, LIMIT_MAX).build()
}
