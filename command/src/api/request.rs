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
pub(super) const ACTOR_CHARS_MAX: usize = 128;

/// Everything of a command request but its body.
#[derive(Debug)]
pub(super) struct Context {
    method: String,
    path: String,
    key: Option<String>,
    expected: Vec<Version>,
    metadata: Metadata,
    /// When the request arrived, to the microsecond: what PostgreSQL keeps.
    pub(super) now: DateTime<Utc>,
}

impl Context {
    /// The request for the executor. `body` is what the key's request is recognised by.
    pub(super) fn into_request(self, order_id: OrderId, command: OrderCommand, body: &[u8]) -> Request {
        let Self { method, path, key, expected, metadata, now } = self;
        let key = key.map(|key| Key::new(key, &method, &path, &expected, body));
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

/// `If-Match`: the versions that the caller accepts, in ascending order. None for `*` and without the header: any.
///
/// A list and repeated lines mean the same (RFC 9110, 5.3). Weak tags are taken too, against 13.1.1: order-query's tags are weak because
/// they say nothing of the bytes, but the version in them is exact, and the version is all that a command compares.
fn if_match(headers: &HeaderMap) -> Result<Vec<Version>, Problem> {
    const HEADER: &str = "if-match";
    let refused = |why: &str| refused("invalid-if-match", "Invalid If-Match", HEADER, why.to_owned());
    let mut versions = Vec::new();
    let (mut tags, mut any) = (0, false);
    for line in headers.get_all(HEADER) {
        let line = line.to_str().map_err(|_opaque| refused("it is not printable ASCII"))?;
        // Our tags hold digits alone, so every comma is between two of them. Empty elements are allowed.
        for tag in line.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
            tags += 1;
            if tag == "*" {
                any = true;
            } else {
                versions.push(version_of(tag).ok_or_else(|| refused("it is not the ETag of an order, such as \"3\""))?);
            }
        }
    }
    match (any, tags) {
        (true, 2..) => Err(refused("`*` stands alone")),
        (false, 0) if headers.contains_key(HEADER) => Err(refused("it is empty")),
        _ => {
            versions.sort_unstable();
            versions.dedup();
            Ok(versions)
        }
    }
}

/// The version in `"3"`, `W/"3"` or a bare `3`: digits as an `ETag` writes them, without a sign or leading zeros.
fn version_of(tag: &str) -> Option<Version> {
    let opaque = tag.strip_prefix("W/").unwrap_or(tag);
    let digits = match opaque.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => tag,
    };
    let version: u32 = digits.parse().ok()?;
    (version.to_string() == digits).then_some(Version(version))
}

fn name(headers: &HeaderMap, header: &'static str) -> Result<Option<String>, Problem> {
    let refused = |why: &str| refused("invalid-header", "Invalid header", header, why.to_owned());
    match single(headers, header).map_err(refused)?.map(str::trim) {
        None | Some("") => Ok(None),
        Some(value) if value.len() > ACTOR_CHARS_MAX => Err(refused("it is too long")),
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
    fn if_match_names_versions() {
        let versions = |value| if_match(&headers(&[("if-match", value)])).map_err(|problem| problem.code());
        let accepted: [(&str, &[u32]); 8] = [
            ("\"3\"", &[3]),
            ("W/\"3\"", &[3]),
            ("3", &[3]),
            ("*", &[]),
            ("\"7\", \"1\"", &[1, 7]),
            ("W/\"7\",\"1\" ,, \"7\"", &[1, 7]),
            ("\"4294967295\"", &[u32::MAX]),
            (" \"3\" ", &[3]),
        ];
        for (value, expected) in accepted {
            assert_eq!(versions(value), Ok(expected.iter().copied().map(Version).collect()), "{value}");
        }
        for bad in [
            "",
            ",",
            "three",
            "-1",
            "+1",
            "\"+1\"",
            "\"01\"",
            "\"\"",
            "\"1",
            "1\"",
            "W/1",
            "w/\"1\"",
            "W/W/\"1\"",
            "\"1\" \"2\"",
            "*, \"1\"",
            "*,*",
            "\"4294967296\"",
            "\"1 \"",
        ] {
            assert_eq!(versions(bad), Err("invalid-if-match"), "{bad:?}");
        }
        let lines = headers(&[("if-match", "\"7\""), ("if-match", "\"1\"")]);
        assert_eq!(if_match(&lines).unwrap(), [Version(1), Version(7)], "lines are a list");
        assert!(if_match(&headers(&[])).unwrap().is_empty());
    }
}
