//! What the description says beside the handlers' annotations: each route's problems, and the limits of values.

use chassis::http::describe::{Known, complete, headers, schemas};
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::Object;

use super::request::{ACTOR_CHARS_MAX, Actor, REASON_CHARS_MAX};
use crate::api::describe::READ;
use crate::generation::Source;

const LETTER: &[Known] = &[(404, "unknown-dead-letter")];
const PARKED: &[Known] = &[(404, "unknown-parked-event")];
const REASON: &[Known] = &[(400, "invalid-reason")];
const RUNNING: &[Known] = &[(409, "rebuild-running")];

/// The problems of an operation beside those that follow from its parameters and its body.
fn problems(operation: &str) -> Vec<Known> {
    match operation {
        "get_dead_letter" | "retry_dead_letter" => [READ, LETTER].concat(),
        "discard_dead_letter" => [READ, LETTER, REASON].concat(),
        "get_parked_order" | "retry_parked_order" | "heal_parked_order" => [READ, PARKED].concat(),
        "discard_parked_event" => [READ, PARKED, REASON].concat(),
        "start_rebuild" => [READ, RUNNING, &[(400, "invalid-source")]].concat(),
        "roll_back" => [READ, RUNNING, &[(409, "no-previous-generation")]].concat(),
        "get_intervention" => [READ, &[(404, "unknown-intervention")]].concat(),
        "retry_dead_letters" | "retry_parked" | "list_interventions" | "list_generations" | "get_rebuild"
        | "stop_rebuild" => READ.to_vec(),
        _ => Vec::new(),
    }
}

/// The document with each route's problems and headers.
pub(super) fn completed(openapi: OpenApi) -> OpenApi {
    complete(openapi, problems)
}

impl IntoParams for Actor {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![headers::actor(ACTOR_CHARS_MAX)]
    }
}

pub(super) fn reason() -> Object {
    schemas::text(REASON_CHARS_MAX).description(Some("In words, for the audit trail")).build()
}

pub(super) fn source() -> Object {
    schemas::one_of([Source::Topic, Source::Log].map(Source::as_str)).build()
}

pub(super) fn digest() -> Object {
    schemas::anything().pattern(Some("^[0-9a-f]{32}$")).build()
}
