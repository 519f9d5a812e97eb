//! What a client may keep of an answer, for how long, and how it asks whether that still holds.
//!
//! Every answer is `private`: it is about somebody's orders. Lists have no `ETag`: what tells two of them apart is
//! their rows, and reading those is the whole work.

use std::fmt;

use axum::http::header::{CACHE_CONTROL, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Kept, and asked about each time.
const REVALIDATED: HeaderValue = HeaderValue::from_static("private, no-cache");
/// A version that is applied never changes; a year is as good as ever (RFC 9111).
const IMMUTABLE: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
/// Not kept at all.
const UNKEPT: HeaderValue = HeaderValue::from_static("no-store");

/// How long an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Until something happens.
    ForNow,
    /// For ever: it is about the past.
    ForEver,
}

/// What names the state that an answer shows. Weak: another release may write the same state with other bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    etag: HeaderValue,
    holds: Holds,
}

impl Tag {
    /// A tag of these letters and digits.
    pub(super) fn new(state: impl fmt::Display, holds: Holds) -> Self {
        let etag = HeaderValue::try_from(format!("W/\"{state}\""));
        // Letters and digits are a header value.
        Self { etag: etag.unwrap_or_else(|_impossible| HeaderValue::from_static("W/\"0\"")), holds }
    }

    /// Whether the client has this state already. RFC 9110: weak comparison with any of a list, or with anything.
    pub(super) fn is_known(&self, headers: &HeaderMap) -> bool {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let ours = self.etag.to_str().map(opaque).unwrap_or_default();
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|known| known.to_str().ok());
        known.flat_map(|known| known.split(',')).any(|known| known.trim() == "*" || opaque(known) == ours)
    }

    /// The answer to a client that has this state.
    pub(super) fn not_modified(self) -> Response {
        self.on(StatusCode::NOT_MODIFIED)
    }

    /// The answer with its name on it.
    pub(super) fn on(self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        let keep = match self.holds {
            Holds::ForNow => REVALIDATED,
            Holds::ForEver => IMMUTABLE,
        };
        response.headers_mut().extend([(ETAG, self.etag), (CACHE_CONTROL, keep)]);
        response
    }
}

/// An answer that nobody is to keep: it is about the service at this moment.
pub(super) fn unkept(answer: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, UNKEPT)], answer).into_response()
}

/// What holds where nothing else is said: answers are asked about each time, and refusals are not kept, or a 404 would
/// be.
pub(super) async fn said_of_all(mut response: Response) -> Response {
    let status = response.status();
    let keep = if status.is_client_error() || status.is_server_error() { UNKEPT } else { REVALIDATED };
    response.headers_mut().entry(CACHE_CONTROL).or_insert(keep);
    response
}
