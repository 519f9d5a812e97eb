//! The OpenAPI documents, held against every answer that any test here gets.

use std::sync::LazyLock;

use axum::http::HeaderMap;
use chassis::testkit::contract::Contract;

static DOCUMENTS: LazyLock<[Contract; 2]> =
    LazyLock::new(|| [Contract::of(&query::api::openapi()), Contract::of(&query::admin::openapi())]);

/// Fails unless one of the documents allows the answer, or it is about nothing that they describe.
#[track_caller]
pub(crate) fn allow(method: &str, target: &str, status: u16, headers: &HeaderMap, body: &[u8]) {
    for document in DOCUMENTS.iter() {
        match document.check(method, target, status, headers, body) {
            Ok(true) => return,
            Ok(false) => {}
            Err(fault) => panic!("{fault}"),
        }
    }
}
