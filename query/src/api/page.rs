//! What all lists share: how many rows a page has, and how many are there to be told whether more follow.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use chassis::http::problem::Problem;

use super::invalid_query;

/// Rows of a page unless asked otherwise.
pub(super) const LIMIT_DEFAULT: u32 = 50;
/// The most rows of a page.
pub(super) const LIMIT_MAX: u32 = 200;

/// The rows of a page; 400 outside 1 to [`LIMIT_MAX`].
pub(crate) fn limit(asked: Option<u32>) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(LIMIT_DEFAULT);
    if (1..=LIMIT_MAX).contains(&limit) {
        Ok(limit)
    } else {
        Err(invalid_query("limit", format!("must be 1 to {LIMIT_MAX}")))
    }
}

/// Cuts off the row that was only read to see whether more follow; tells whether it was there.
pub(super) fn cut<T>(rows: &mut Vec<T>, limit: u32) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

/// A body that is JSON already.
pub(super) fn json(body: Bytes) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
