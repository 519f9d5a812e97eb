//! The one error body: RFC 9457 `application/problem+json`.
//!
//! Status codes are chosen by what the client will do next: 4xx change the request, 500 report a bug,
//! 503 try again later. Every code has a page at `/errors/{code}` ([`super::errors`]).

use std::borrow::Cow;
use std::error::Error as StdError;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::{RefOr, schema::Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::telemetry::ErrorChain;

/// The media type of a problem.
pub const CONTENT_TYPE_PROBLEM: &str = "application/problem+json";

/// Whether the request may have had an effect (rules R16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It had none, and will have none; it can be sent again.
    NotExecuted,
    /// It may or may not have had one; only the same idempotency key tells.
    Unknown,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// JSON Pointer into the body (RFC 6901), or the name of the parameter.
    pub pointer: String,
    /// Stable code of the rule that is broken.
    pub code: Cow<'static, str>,
    /// The rule in words.
    pub detail: String,
}

/// A problem: status, stable code, words for people, and extra headers.
///
/// Boxed inside, so that `Result<_, Problem>` stays small.
#[derive(Debug, Clone)]
pub struct Problem {
    members: Box<Members>,
}

/// An error (RFC 9457).
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Problem)]
struct Members {
    /// The page about this code, `/errors/{code}`.
    #[serde(rename = "type")]
    kind: String,
    /// What happened, the same words for every problem of this code.
    title: Cow<'static, str>,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: Cow<'static, str>,
    /// Stable code to branch on.
    code: &'static str,
    /// Whether the request may have had an effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    outcome: Option<Outcome>,
    /// What is wrong, field by field.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
    #[serde(flatten)]
    #[schema(ignore)]
    extra: Map<String, Value>,
    #[serde(skip)]
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with the four members every problem has; `type` follows from `code`.
    pub fn new(
        status: StatusCode,
        code: &'static str,
        title: impl Into<Cow<'static, str>>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            members: Box::new(Members {
                kind: format!("/errors/{code}"),
                title: title.into(),
                status: status.as_u16(),
                detail: detail.into(),
                code,
                outcome: None,
                errors: Vec::new(),
                extra: Map::new(),
                headers: Vec::new(),
            }),
        }
    }

    /// A bug: logs the whole chain of `error` and tells the client nothing about it.
    pub fn internal(error: &dyn StdError) -> Self {
        tracing::error!(error = %ErrorChain(error), "internal error");
        Self::internal_silent()
    }

    /// A bug that was logged already.
    pub(crate) fn internal_silent() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "this is a bug of the service; the log has the details under the request id",
        )
        // How far the request came before it met the bug is not known.
        .outcome(Outcome::Unknown)
    }

    /// Says whether the request may have had an effect.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.members.outcome = Some(outcome);
        self
    }

    /// Adds one thing that is wrong.
    #[must_use]
    pub fn error(
        mut self,
        pointer: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Self {
        self.members.errors.push(FieldError { pointer: pointer.into(), code: code.into(), detail: detail.into() });
        self
    }

    /// Adds a member of its own. The names of the standard members cannot be taken.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        const TAKEN: [&str; 7] = ["type", "title", "status", "detail", "code", "outcome", "errors"];
        let name = name.into();
        if !TAKEN.contains(&name.as_str()) {
            self.members.extra.insert(name, value.into());
        }
        self
    }

    /// Adds `Retry-After` in seconds; the caller adds jitter.
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.header(RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a response header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.members.headers.push((name, value));
        self
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.members.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The stable code.
    pub fn code(&self) -> &'static str {
        self.members.code
    }

    /// The extra headers, without `Content-Type`.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.members.headers
    }

    /// The exact text of the body, for a response that is stored and replayed.
    ///
    /// # Errors
    ///
    /// When a member cannot be serialised: there is no answer to store then.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.members)
    }

    /// The bytes of the body.
    pub fn body(&self) -> Vec<u8> {
        // Strings, numbers and a map with string keys always serialise.
        self.json().unwrap_or_else(|_impossible| "{}".to_owned()).into_bytes()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.body()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_PROBLEM));
        for (name, value) in self.members.headers {
            headers.append(name, value);
        }
        response
    }
}

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        Members::schema()
    }
}

impl ToSchema for Problem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Problem")
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Members::schemas(schemas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_standard_members() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "Invalid body", "no")
            .outcome(Outcome::NotExecuted)
            .error("/items/0/sku", "missing", "missing field `sku`")
            .with("version", 3)
            .with("status", "a lie")
            .retry_after(2);
        let body: Value = serde_json::from_slice(&problem.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "/errors/invalid-body", "title": "Invalid body", "status": 422, "detail": "no",
                "code": "invalid-body", "outcome": "not-executed", "version": 3,
                "errors": [{"pointer": "/items/0/sku", "code": "missing", "detail": "missing field `sku`"}],
            })
        );
        let response = problem.into_response();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.headers()[CONTENT_TYPE], CONTENT_TYPE_PROBLEM);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
    }

    #[test]
    fn the_schema_names_the_members() {
        let schema = serde_json::to_value(Problem::schema()).unwrap();
        assert!(schema["properties"]["code"].is_object(), "{schema}");
        assert!(schema["properties"]["outcome"].is_object(), "{schema}");
        assert!(schema["properties"].get("headers").is_none(), "{schema}");
    }
}
