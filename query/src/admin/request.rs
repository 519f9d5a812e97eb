//! What a request says of itself: who asks, and why.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use chassis::http::problem::{Outcome, Problem};
use serde::Deserialize;
use utoipa::ToSchema;

use super::describe;
use crate::hex;
use crate::intake::Digest;

/// The most characters of `X-Actor`.
pub(super) const ACTOR_CHARS_MAX: usize = 128;
/// The most characters of a reason.
pub(super) const REASON_CHARS_MAX: usize = 1_000;

/// Who says to be asking: `X-Actor`, as the command service takes it.
#[derive(Debug)]
pub(super) struct Actor(pub(super) Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let refused = |why: &'static str| {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid-header", "Invalid header", why);
            problem.outcome(Outcome::NotExecuted).error("x-actor", "invalid-header", why)
        };
        let mut values = parts.headers.get_all("x-actor").iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Ok(Self(None)),
            (Some(_), Some(_)) => return Err(refused("it is given more than once")),
            (Some(value), None) => value.to_str().map_err(|_opaque| refused("it is not printable ASCII"))?.trim(),
        };
        match value {
            "" => Ok(Self(None)),
            value if value.len() > ACTOR_CHARS_MAX => Err(refused("it is too long")),
            value => Ok(Self(Some(value.to_owned()))),
        }
    }
}

/// Why something is discarded.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Discard {
    /// In words, for the audit trail
    #[schema(required = true, schema_with = describe::reason)]
    reason: Option<String>,
}

impl Discard {
    /// The reason; 400 `invalid-reason` when there is none.
    pub(super) fn reason(body: Option<Self>) -> Result<String, Problem> {
        let reason = body.and_then(|body| body.reason).unwrap_or_default();
        let reason = reason.trim();
        if (1..=REASON_CHARS_MAX).contains(&reason.chars().count()) {
            return Ok(reason.to_owned());
        }
        let detail = format!("whoever discards says why, in 1 to {REASON_CHARS_MAX} characters");
        let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid-reason", "Invalid reason", detail.clone());
        Err(problem.outcome(Outcome::NotExecuted).error("/reason", "invalid-reason", detail))
    }
}

/// A digest of the path; 400 `invalid-id` when it is none.
pub(super) fn digest(text: &str) -> Result<Digest, Problem> {
    let refused = || {
        let detail = "a digest is 32 hexadecimal digits, as the lists show it";
        Problem::new(StatusCode::BAD_REQUEST, "invalid-id", "Invalid identifier", detail)
    };
    hex::digest(text).ok_or_else(refused)
}
