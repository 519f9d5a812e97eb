//! `GET /`: what answers here, and where to go on.

use std::collections::BTreeMap;

use axum::http::header::{ACCEPT, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

/// Where a listener's documentation is, if it has one.
const DOCS: &str = "docs";

/// What answers at a listener.
#[derive(Debug, Clone, Serialize)]
pub struct Index {
    /// The program.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Addresses by what they are; browsers are sent to `docs`.
    pub links: BTreeMap<&'static str, &'static str>,
}

/// Serves the index at `/`.
pub fn router(index: Index) -> Router {
    Router::new().route("/", get(|headers: HeaderMap| async move { answer(&index, &headers) }))
}

fn answer(index: &Index, headers: &HeaderMap) -> Response {
    let mut response = match index.links.get(DOCS) {
        Some(docs) if is_browser(headers) => Redirect::to(docs).into_response(),
        _ => Json(index).into_response(),
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    response
}

/// A browser names HTML when it opens a page, and no other client does.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|line| line.to_str().ok());
    let mut types = accepted.flat_map(|line| line.split(',')).map(|item| item.split(';').next().unwrap_or_default());
    types.any(|media_type| media_type.trim().eq_ignore_ascii_case("text/html"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::LOCATION;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn get_accepting(accept: &str, links: &[(&'static str, &'static str)]) -> Response {
        let index = Index { name: "shop", version: "1.2.3", links: links.iter().copied().collect() };
        let request = Request::get("/").header(ACCEPT, accept).body(Body::empty()).unwrap();
        router(index).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn programs_are_told_and_browsers_are_sent_to_the_docs() {
        let links = [("docs", "/docs"), ("health", "/health/ready")];
        let response = get_accepting("*/*", &links).await;
        assert_eq!(
            (response.status(), &response.headers()[VARY]),
            (StatusCode::OK, &HeaderValue::from_static("accept"))
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let told: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&told["name"], &told["version"]), (&"shop".into(), &"1.2.3".into()));
        assert_eq!(told["links"]["health"], "/health/ready");
        let response = get_accepting("application/xhtml+xml, Text/HTML;q=0.9, */*;q=0.8", &links).await;
        assert_eq!(
            (response.status(), &response.headers()[LOCATION]),
            (StatusCode::SEE_OTHER, &HeaderValue::from_static("/docs"))
        );
        let response = get_accepting("text/html", &links[1..]).await;
        assert_eq!(response.status(), StatusCode::OK, "without docs there is nowhere to go");
    }
}
