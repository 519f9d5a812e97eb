//! What the OpenAPI documents of all services have in common: the problems that routes answer, and headers.
//!
//! A route's annotation names its parameters, its body and its successes. [`complete`] adds its failures: those that
//! follow from its parameters and its body, and those that its service names for it. Tests hold the answers of running
//! services against the result, in both directions.

pub mod headers;

pub mod schemas;

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, Parameter, ParameterIn, PathItem};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::schema::{AllOfBuilder, Array, Object, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{OpenApi, Ref, RefOr, Required};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::{CONTENT_TYPE_PROBLEM, Problem};

/// A problem that a route can answer: status and code.
pub type Known = (u16, &'static str);

/// What any request may meet: a head that HTTP forbids, a bug.
const ANY: &[Known] = &[(400, "invalid-host"), (400, "invalid-header"), (500, "internal")];
/// A path that has parameters.
const PATH: &[Known] = &[(400, "invalid-id")];
/// A query string that has parameters.
const QUERY: &[Known] = &[(400, "invalid-query")];
/// A JSON body.
const BODY: &[Known] = &[
    (400, "malformed-json"),
    (408, "body-too-slow"),
    (413, "body-too-large"),
    (415, "unsupported-media-type"),
    (415, "unsupported-content-encoding"),
    (422, "invalid-body"),
];

/// Adds to every operation its problems, the headers that every request may have and those that every answer has.
///
/// `problems` names the problems of an operation, by its id, beside those that follow from its parameters and its body.
pub fn complete(mut openapi: OpenApi, problems: impl Fn(&str) -> Vec<Known>) -> OpenApi {
    let mut components = openapi.components.take().unwrap_or_default();
    let mut schemas = vec![(Problem::name().into_owned(), Problem::schema())];
    Problem::schemas(&mut schemas);
    components.schemas.extend(schemas);
    for parameter in headers::of_any_request() {
        components.parameters.insert(parameter.name.clone(), parameter.into());
    }
    for operation in openapi.paths.paths.values_mut().flat_map(operations) {
        settle_optional(operation);
        let has_key = headers::has_key(operation);
        for (status, codes) in known(operation, &problems) {
            let name = format!("{status}.{}", codes.iter().copied().collect::<Vec<_>>().join("."));
            operation.responses.responses.insert(status.to_string(), Ref::from_response_name(&name).into());
            components.responses.entry(name).or_insert_with(|| problem(status, &codes, has_key).into());
        }
        let parameters = operation.parameters.get_or_insert_default();
        parameters.extend(
            headers::of_any_request()
                .iter()
                .map(|parameter| RefOr::Ref(Ref::new(format!("#/components/parameters/{}", parameter.name)))),
        );
    }
    let responses = openapi.paths.paths.values_mut().flat_map(operations);
    let responses = responses.flat_map(|operation| operation.responses.responses.values_mut());
    let mut used = BTreeSet::new();
    for response in responses.chain(components.responses.values_mut()) {
        if let RefOr::T(response) = response {
            used.extend(headers::refer(response));
        }
    }
    components.headers.extend(headers::described(&used));
    openapi.components = Some(components);
    openapi
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete].into_iter().filter_map(Option::as_mut)
}

/// Takes `null` out of parameters and bodies: what may be absent is left out, and `null` is a value of its own. What the
/// path names is always there.
fn settle_optional(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(Parameter { schema: Some(schema), parameter_in, required, .. }) = parameter else { continue };
        take_null(schema);
        if *parameter_in == ParameterIn::Path {
            *required = Required::True;
        }
    }
    let Some(RefOr::T(body)) = &mut operation.request_body else { return };
    for content in body.content.values_mut() {
        if let RefOr::T(content) = content
            && let Some(schema) = &mut content.schema
            && take_null(schema)
        {
            body.required = Some(Required::False);
        }
    }
}

/// Takes `null` out of what a schema allows; tells whether it was there.
fn take_null(schema: &mut RefOr<Schema>) -> bool {
    let null = SchemaType::Type(Type::Null);
    match schema {
        RefOr::T(
            Schema::Object(Object { schema_type: SchemaType::Array(types), .. })
            | Schema::Array(Array { schema_type: SchemaType::Array(types), .. }),
        ) => {
            let before = types.len();
            types.retain(|kind| *kind != Type::Null);
            types.len() < before
        }
        RefOr::T(Schema::OneOf(one_of)) => {
            let before = one_of.items.len();
            one_of.items.retain(
                |item| !matches!(item, RefOr::T(Schema::Object(Object { schema_type, .. })) if *schema_type == null),
            );
            let was_there = one_of.items.len() < before;
            if let [only] = one_of.items.as_slice() {
                *schema = only.clone();
            }
            was_there
        }
        RefOr::T(_) | RefOr::Ref(_) => false,
    }
}

/// The codes of an operation's problems by their status.
fn known(operation: &Operation, named: impl Fn(&str) -> Vec<Known>) -> BTreeMap<u16, BTreeSet<&'static str>> {
    let mut known = ANY.to_vec();
    for parameter in operation.parameters.iter().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        known.extend(match parameter.parameter_in {
            ParameterIn::Path => PATH,
            ParameterIn::Query | ParameterIn::QueryString => QUERY,
            ParameterIn::Header | ParameterIn::Cookie => &[],
        });
    }
    if operation.request_body.is_some() {
        known.extend(BODY);
    }
    known.extend(named(operation.operation_id.as_deref().unwrap_or_default()));
    let mut by_status: BTreeMap<u16, BTreeSet<&'static str>> = BTreeMap::new();
    for (status, code) in known {
        by_status.entry(status).or_default().insert(code);
    }
    by_status
}

/// The answer with one of these problems.
fn problem(status: u16, codes: &BTreeSet<&'static str>, has_key: bool) -> Response {
    let pages: Vec<_> = codes.iter().map(|code| format!("[`{code}`](/errors/{code})")).collect();
    let narrowed = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("status", ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([status])))
        .property("code", schemas::one_of(codes.iter().copied()));
    let schema = AllOfBuilder::new().item(Ref::from_schema_name(Problem::name())).item(narrowed);
    let content = ContentBuilder::new().schema(Some(schema)).build();
    let response = ResponseBuilder::new()
        .description(format!("{}: {}", meaning(status), pages.join(", ")))
        .content(CONTENT_TYPE_PROBLEM, content);
    headers::of_problem(response, status, codes, has_key).build()
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is malformed",
        404 => "There is no such thing",
        408 => "The body did not arrive in time",
        409 => "The state does not allow it",
        412 => "The state is not the one that the caller has seen",
        413 => "The body is too large",
        415 => "The body is not plain JSON",
        422 => "The request cannot be accepted like this",
        500 => "A bug of the service",
        503 => "Not now; `Retry-After` tells when to ask again",
        _ => "Refused",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder};
    use utoipa::openapi::request_body::RequestBodyBuilder;
    use utoipa::openapi::schema::OneOfBuilder;
    use utoipa::openapi::{InfoBuilder, OpenApiBuilder, PathsBuilder};

    use super::*;

    /// `POST /things/{id}` that may have a body.
    fn described() -> Value {
        let id = ParameterBuilder::new().name("id").parameter_in(ParameterIn::Path);
        let optional =
            OneOfBuilder::new().item(ObjectBuilder::new().schema_type(Type::Null)).item(Ref::from_schema_name("Thing"));
        let content = ContentBuilder::new().schema(Some(optional)).build();
        let operation = OperationBuilder::new()
            .operation_id(Some("do_thing"))
            .parameter(id)
            .request_body(Some(RequestBodyBuilder::new().content("application/json", content).build()))
            .response("200", Response::new("Done"));
        let paths = PathsBuilder::new().path("/things/{id}", PathItem::new(HttpMethod::Post, operation));
        let openapi = OpenApiBuilder::new().info(InfoBuilder::new().title("x").version("1")).paths(paths).build();
        let completed = complete(openapi, |id| match id {
            "do_thing" => vec![(409, "done"), (503, "overloaded")],
            _ => Vec::new(),
        });
        serde_json::to_value(completed).unwrap()
    }

    #[test]
    fn failures_follow_from_parameters_body_and_what_the_service_names() {
        let document = described();
        let operation = &document["paths"]["/things/{id}"]["post"];
        let statuses: Vec<_> = operation["responses"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(statuses, ["200", "400", "408", "409", "413", "415", "422", "500", "503"]);
        let name = "400.invalid-header.invalid-host.invalid-id.malformed-json";
        assert_eq!(operation["responses"]["400"]["$ref"], format!("#/components/responses/{name}"));
        let response = &document["components"]["responses"][name];
        let schema = &response["content"]["application/problem+json"]["schema"];
        assert_eq!(schema["allOf"][0]["$ref"], "#/components/schemas/Problem");
        assert_eq!(
            schema["allOf"][1]["properties"]["code"]["enum"],
            json!(["invalid-header", "invalid-host", "invalid-id", "malformed-json"])
        );
        assert!(document["components"]["schemas"]["FieldError"].is_object(), "{document}");
    }

    #[test]
    fn a_body_that_may_be_absent_is_not_null() {
        let body = &described()["paths"]["/things/{id}"]["post"]["requestBody"];
        assert_eq!(body["content"]["application/json"]["schema"]["$ref"], "#/components/schemas/Thing");
        assert_eq!(body["required"], false);
    }

    #[test]
    fn headers_are_described_once_and_only_where_they_occur() {
        let document = described();
        let headers = &document["components"]["headers"];
        let names: Vec<_> = headers.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["Cache-Control", "Retry-After", "X-Request-Id"]);
        assert_eq!(headers["X-Request-Id"]["required"], true);
        let of_200 = &document["paths"]["/things/{id}"]["post"]["responses"]["200"]["headers"];
        assert_eq!(of_200["X-Request-Id"]["$ref"], "#/components/headers/X-Request-Id");
        assert!(of_200.get("Retry-After").is_none());
    }
}
