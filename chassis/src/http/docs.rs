//! `/openapi.json` and `/docs`: the API's description and a page to try it, both from the binary.

use axum::Router;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

/// Serves the document at `/openapi.json` and Swagger UI at `/docs/` (`/docs` redirects there).
///
/// The UI is part of the binary: no network, no third party.
pub fn router(openapi: OpenApi) -> Router {
    SwaggerUi::new("/docs").url("/openapi.json", openapi).into()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::LOCATION;
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use utoipa::openapi::{InfoBuilder, OpenApiBuilder};

    use super::*;

    async fn get(uri: &str) -> axum::response::Response {
        let openapi = OpenApiBuilder::new().info(InfoBuilder::new().title("Shop").version("1")).build();
        let request = Request::get(uri).body(Body::empty()).unwrap();
        router(openapi).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn the_page_is_one_redirect_away_and_loads_nothing_from_elsewhere() {
        let response = get("/docs").await;
        assert!(response.status().is_redirection());
        assert_eq!(response.headers()[LOCATION], "/docs/");
        let response = get("/docs/").await;
        assert_eq!(response.status(), StatusCode::OK);
        let page = response.into_body().collect().await.unwrap().to_bytes();
        let page = std::str::from_utf8(&page).unwrap();
        assert!(!page.contains("src=\"http") && !page.contains("src=\"//"), "{page}");
    }

    #[tokio::test]
    async fn the_document_is_served() {
        let response = get("/openapi.json").await;
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(document["info"]["title"], "Shop");
    }
}
