//! Reading and decoding a JSON body, with every failure a [`Problem`].

mod arrivals;
mod strict;

use std::pin::pin;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

pub(super) use self::arrivals::Arrivals;
use self::strict::Strict;
use super::admission::overloaded;
use super::limits::BodyLimits;
use super::peer::Peer;
use super::problem::{Outcome, Problem};

/// Reads the whole body within the limits of the server.
pub(super) async fn read(request: Request) -> Result<Bytes, Problem> {
    require_identity(request.headers())?;
    let limits = request.extensions().get::<BodyLimits>().cloned().unwrap_or_default();
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::UNKNOWN);
    // Nobody is asked for a body that is refused: `Expect: 100-continue` is answered with this.
    if request.body().size_hint().lower() > limits.bytes_max as u64 {
        return Err(ReadFailure::TooLarge.problem(&limits));
    }
    let mut arriving = pin!(collect(Limited::new(request.into_body(), limits.bytes_max)));
    let read = match arriving.as_mut().now_or_never() {
        Some(here_already) => here_already,
        None => {
            let mut place = limits.arrivals.enter(peer);
            tokio::select! {
                biased;
                read = arriving => read,
                () = place.displaced() => Err(ReadFailure::Displaced),
                () = tokio::time::sleep(limits.read_timeout) => Err(ReadFailure::TooSlow),
            }
        }
    };
    read.map_err(|failure| failure.problem(&limits))
}

enum ReadFailure {
    TooLarge,
    TooSlow,
    Displaced,
    Cut(String),
}

impl ReadFailure {
    fn problem(self, limits: &BodyLimits) -> Problem {
        match self {
            Self::TooSlow => not_executed(
                StatusCode::REQUEST_TIMEOUT,
                "body-too-slow",
                "Body too slow",
                format!("the body did not arrive within {} ms", limits.read_timeout.as_millis()),
            ),
            Self::Displaced => {
                overloaded("more bodies are on their way than there may be; this one had waited the longest".to_owned())
            }
            Self::TooLarge => not_executed(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body-too-large",
                "Body too large",
                format!("a body has at most {} bytes", limits.bytes_max),
            ),
            Self::Cut(reason) => not_executed(
                StatusCode::BAD_REQUEST,
                "malformed-json",
                "Malformed JSON",
                format!("the body ended early: {reason}"),
            ),
        }
    }
}

async fn collect(body: Limited<Body>) -> Result<Bytes, ReadFailure> {
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ReadFailure::TooLarge),
        Err(error) => Err(ReadFailure::Cut(error.to_string())),
    }
}

/// Refuses a body that is compressed, or encoded in another way.
fn require_identity(headers: &HeaderMap) -> Result<(), Problem> {
    let named =
        headers.get_all(CONTENT_ENCODING).iter().find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(coding) = named else { return Ok(()) };
    let coding = String::from_utf8_lossy(coding.as_bytes());
    let problem = not_executed(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-content-encoding",
        "Unsupported content encoding",
        format!("the body has Content-Encoding: {coding}; send it as it is"),
    );
    Err(problem.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")))
}

/// Refuses a body that does not say it is JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if given.is_some_and(is_json) {
        return Ok(());
    }
    Err(not_executed(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "Unsupported media type",
        "the body must have Content-Type: application/json",
    ))
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Decodes `bytes`, naming the field at fault by its JSON Pointer.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if has_nul_escape(bytes) {
        return Err(nul_character(bytes));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(Strict(&mut json)) {
        Ok(value) => json.end().map(|()| value).map_err(|error| malformed(&error)),
        // A parser stops at the first fault; where the shape is wrong, the rest must still be JSON before
        // the shape is worth talking about.
        Err(error) if error.inner().is_data() => match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
            Ok(_) => Err(invalid(&error)),
            Err(syntax) => Err(malformed(&syntax)),
        },
        Err(error) => Err(malformed(error.inner())),
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    not_executed(StatusCode::BAD_REQUEST, "malformed-json", "Malformed JSON", error.to_string())
}

fn invalid(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let detail = without_position(&error.inner().to_string());
    let mut at = pointer(error.path());
    // The path of a missing field ends at its parent.
    if let Some(name) = detail.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        at.push('/');
        at.push_str(&escape(name));
    }
    invalid_body(at, "invalid", detail)
}

fn invalid_body(pointer: String, code: &'static str, detail: String) -> Problem {
    not_executed(
        StatusCode::UNPROCESSABLE_ENTITY,
        "invalid-body",
        "Invalid body",
        format!("the body is JSON but not what this call takes: {detail}"),
    )
    .error(pointer, code, detail)
}

fn not_executed(
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: impl Into<std::borrow::Cow<'static, str>>,
) -> Problem {
    Problem::new(status, code, title, detail).outcome(Outcome::NotExecuted)
}

/// `serde_json` appends " at line 1 column 2", which says nothing about a field.
fn without_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(text, _)| text).to_owned()
}

fn pointer(path: &Path) -> String {
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                text.push('/');
                text.push_str(&escape(key));
            }
            // A variant is chosen by a tag and is no step in the document.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

/// RFC 6901: `~` and `/` are written `~0` and `~1`.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Whether a string in this JSON holds an escaped U+0000 (rules R13).
///
/// PostgreSQL's `json` stores it and its `jsonb` and `text` refuse it: an error far from its cause.
/// A NUL that is not escaped is a syntax error already.
fn has_nul_escape(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        let Some(escape) = rest.get(at + 1..) else { return false };
        if escape.starts_with(b"u0000") {
            return true;
        }
        // Skips the escaped character, which may be a backslash itself.
        rest = escape.get(1..).unwrap_or_default();
    }
    false
}

fn nul_character(bytes: &[u8]) -> Problem {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => {
            let at = find_nul(&value).unwrap_or_default();
            invalid_body(at, "nul-character", "the character U+0000 is not allowed".to_owned())
        }
        Err(error) => malformed(&error),
    }
}

fn find_nul(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, item)| find_nul(item).map(|below| format!("/{index}{below}")))
        }
        Value::Object(members) => members.iter().find_map(|(key, member)| {
            if key.contains('\0') {
                return Some(String::new());
            }
            find_nul(member).map(|below| format!("/{}{below}", escape(key)))
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Basket {
        #[expect(dead_code, reason = "only its shape is tested")]
        lines: Vec<Line>,
    }

    #[derive(Debug, Deserialize)]
    struct Line {
        #[expect(dead_code, reason = "only its shape is tested")]
        count: u32,
    }

    fn fault(json: &str) -> (u16, String, String) {
        let problem = decode::<Basket>(json.as_bytes()).unwrap_err();
        let body: Value = serde_json::from_slice(&problem.body()).unwrap();
        let pointer = body["errors"][0]["pointer"].as_str().unwrap_or("-").to_owned();
        (problem.status().as_u16(), problem.code().to_owned(), pointer)
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let expect = |code: &str, at: &str| (422, code.to_owned(), at.to_owned());
        assert_eq!(fault(r#"{"lines":[{"count":1},{"count":-1}]}"#), expect("invalid-body", "/lines/1/count"));
        assert_eq!(fault(r#"{"lines":[{}]}"#), expect("invalid-body", "/lines/0/count"));
        assert_eq!(fault(r#"{"lines":[],"a/b":1}"#), expect("invalid-body", "/a~1b"));
        assert_eq!(fault("3"), expect("invalid-body", ""));
        assert_eq!(fault("[[]]"), expect("invalid-body", ""));
        assert_eq!(fault("[null,null]"), expect("invalid-body", ""));
        assert_eq!(fault(r#"{"lines":[{"count":1},[1]]}"#), expect("invalid-body", "/lines/1"));
        assert_eq!(fault(r#"{"lines":[{"x":"a\u0000"}]}"#), expect("invalid-body", "/lines/0/x"));
    }

    #[test]
    fn what_is_not_json_is_malformed() {
        for json in ["", "{", "{}}", "nope", r#"{"lines":[{"count":-1},]}"#, "{\"lines\":[]} x"] {
            let (status, code, _) = fault(json);
            assert_eq!((status, code.as_str()), (400, "malformed-json"), "{json}");
        }
    }

    #[test]
    fn an_escaped_backslash_before_u0000_is_no_nul() {
        assert!(!has_nul_escape(br#""a\\u0000""#));
        assert!(has_nul_escape(br#""a\\\u0000""#));
        assert!(!has_nul_escape(br#""a\"#));
    }

    #[test]
    fn json_is_recognised_by_its_media_type() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["text/plain", "", "application/jsonp", "text/json"] {
            assert!(!is_json(no), "{no}");
        }
    }
}
