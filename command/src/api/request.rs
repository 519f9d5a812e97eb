//! The headers of a command: who asks, under which key, having seen which version.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use chassis::http::RequestId;
use chassis::http::problem::{Outcome, Problem};
use chassis::trace::TraceParent;
use chrono::{DateTime, SubsecRound, Utc};
use domain::order::OrderCommand;
use domain::{Metadata, OrderId, Version};

use super::Api;
use crate::executor::Request;
use crate::idempotency::{KEY_CHARS_MAX, Key};

/// The most characters of `X-Actor` and `X-Correlation-Id`.
const NAME_CHARS_MAX: usize = 128;

/// Everything of a command request but its body.
#[derive(Debug)]
pub(super) struct Context {
    method: String,
    path: String,
    key: Option<String>,
    expected: Option<Version>,
    metadata: Metadata,
    /// When the request arrived, to the microsecond: what PostgreSQL keeps.
    pub(super) now: DateTime<Utc>,
}

impl Context {
    /// The request for the executor. `body` is what the key's request is recognised by.
    pub(super) fn into_request(self, order_id: OrderId, command: OrderCommand, body: &[u8]) -> Request {
        let Self { method, path, key, expected, metadata, now } = self;
        let key = key.map(|key| Key::new(key, &method, &path, body));
        Request { order_id, command, expected, key, metadata, occurred_at: now }
    }
}

impl FromRequestParts<Arc<Api>> for Context {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let traceparent = TraceParent::from_request_parts(parts, api).await.ok().map(|parent| parent.to_string());
        let request_id = parts.extensions.get::<RequestId>().map(|id| id.as_str().to_owned());
        let correlation_id = name(&parts.headers, "x-correlation-id")?.or_else(|| request_id.clone());
        Ok(Self {
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            key: idempotency_key(&parts.headers)?,
            expected: if_match(&parts.headers)?,
            metadata: Metadata {
                actor: name(&parts.headers, "x-actor")?,
                correlation_id,
                causation_id: request_id,
                traceparent,
            },
            now: Utc::now().trunc_subsecs(6),
        })
    }
}

fn refused(code: &'static str, title: &'static str, header: &str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, code, title, detail.clone()).outcome(Outcome::NotExecuted).error(
        header.to_owned(),
        code,
        detail,
    )
}

/// The one value of a header, in printable ASCII; none when the header is absent.
fn single<'h>(headers: &'h HeaderMap, header: &str) -> Result<Option<&'h str>, &'static str> {
    let mut values = headers.get_all(header).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err("it is given more than once"),
        (Some(value), None) => value.to_str().map(Some).map_err(|_opaque| "it is not printable ASCII"),
    }
}

/// `Idempotency-Key`, bare or as the quoted string of the IETF draft: both name the same key.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    const HEADER: &str = "idempotency-key";
    let refused = |why: &str| refused("invalid-idempotency-key", "Invalid Idempotency-Key", HEADER, why.to_owned());
    let Some(value) = single(headers, HEADER).map_err(refused)? else { return Ok(None) };
    let value = value.trim();
    let key = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(|| refused("its quotes do not match"))?,
        None => value,
    };
    if key.is_empty() || key.len() > KEY_CHARS_MAX || key.contains('"') {
        return Err(refused(&format!("a key has from 1 to {KEY_CHARS_MAX} characters without quotes")));
    }
    Ok(Some(key.to_owned()))
}

/// `If-Match`: the version that the caller has seen, as the `ETag` told it. `*` asks for any.
fn if_match(headers: &HeaderMap) -> Result<Option<Version>, Problem> {
    const HEADER: &str = "if-match";
    let refused = |why: &str| refused("invalid-if-match", "Invalid If-Match", HEADER, why.to_owned());
    match single(headers, HEADER).map_err(refused)?.map(str::trim) {
        None | Some("*") => Ok(None),
        Some(value) => {
            let version = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            let version = version.parse().map_err(|_text| refused("it is not the ETag of an order, such as \"3\""))?;
            Ok(Some(Version(version)))
        }
    }
}

fn name(headers: &HeaderMap, header: &'static str) -> Result<Option<String>, Problem> {
    let refused = |why: &str| refused("invalid-header", "Invalid header", header, why.to_owned());
    match single(headers, header).map_err(refused)?.map(str::trim) {
        None | Some("") => Ok(None),
        Some(value) if value.len() > NAME_CHARS_MAX => Err(refused("it is too long")),
        Some(value) => Ok(Some(value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_key_is_the_same_bare_or_quoted() {
        let key = |value| idempotency_key(&headers(&[("idempotency-key", value)])).map_err(|problem| problem.code());
        assert_eq!(key("abc"), Ok(Some("abc".to_owned())));
        assert_eq!(key("\"abc\""), Ok(Some("abc".to_owned())));
        for bad in ["", "\"\"", "\"abc", "a\"b", &"x".repeat(256)] {
            assert_eq!(key(bad), Err("invalid-idempotency-key"), "{bad:?}");
        }
        assert!(idempotency_key(&headers(&[])).unwrap().is_none());
        assert!(idempotency_key(&headers(&[("idempotency-key", "a"), ("idempotency-key", "b")])).is_err());
    }

    #[test]
    fn if_match_is_a_version() {
        let version = |value| if_match(&headers(&[("if-match", value)])).map_err(|problem| problem.code());
        assert_eq!(version("\"3\""), Ok(Some(Version(3))));
        assert_eq!(version("3"), Ok(Some(Version(3))));
        assert_eq!(version("*"), Ok(None));
        for bad in ["W/\"3\"", "three", "-1", "\"3\", \"4\""] {
            assert_eq!(version(bad), Err("invalid-if-match"), "{bad:?}");
        }
    }
}
