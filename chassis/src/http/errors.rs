//! `GET /errors/{code}`: the page that a problem's `type` points at.

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use rust_embed::RustEmbed;

use super::extract::Path;
use super::observe::not_found;

/// The pages of `docs/errors/`, inside the binary in a release build.
#[derive(RustEmbed)]
#[folder = "../docs/errors"]
struct Pages;

/// Serves the pages as Markdown.
pub fn router() -> Router {
    Router::new().route("/errors/{code}", get(page))
}

/// Every code that has a page.
pub fn codes() -> impl Iterator<Item = String> {
    Pages::iter().filter_map(|file| file.strip_suffix(".md").map(str::to_owned)).filter(|code| code != "README")
}

async fn page(Path(code): Path<String>) -> Response {
    match Pages::get(&format!("{code}.md")) {
        Some(page) => ([(CONTENT_TYPE, "text/markdown; charset=utf-8")], page.data).into_response(),
        None => not_found().await.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn status(uri: &str) -> StatusCode {
        let request = Request::get(uri).body(Body::empty()).unwrap();
        router().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn a_code_has_a_page() {
        let request = Request::get("/errors/invalid-body").body(Body::empty()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body.starts_with(b"# "), "{body:?}");
    }

    #[tokio::test]
    async fn anything_else_is_not_found() {
        assert_eq!(status("/errors/no-such-code").await, StatusCode::NOT_FOUND);
        assert_eq!(status("/errors/..%2F..%2FREADME").await, StatusCode::NOT_FOUND);
    }

    #[test]
    fn every_page_is_in_the_index_and_well_formed() {
        let index = Pages::get("README.md").unwrap();
        let index = std::str::from_utf8(&index.data).unwrap();
        for code in codes() {
            assert!(index.contains(&format!("({code}.md)")), "{code} is not in the index");
            let page = Pages::get(&format!("{code}.md")).unwrap();
            let page = std::str::from_utf8(&page.data).unwrap();
            assert!(page.starts_with(&format!("# {code}\n")), "{code}");
            for part in ["\n## Cause\n", "\n## Was it executed?\n", "\n## What to do\n"] {
                assert!(page.contains(part), "{code} lacks {part:?}");
            }
        }
    }
}
