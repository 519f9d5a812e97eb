//! `/openapi.json` and `/docs`: the API's description and a page to try it, both from the binary.

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

use super::observe::not_found;

/// Serves the document at `/openapi.json` and Swagger UI at `/docs/` (`/docs` redirects there).
///
/// The UI is part of the binary: no network, no third party.
pub fn router(openapi: OpenApi) -> Router {
    Router::from(SwaggerUi::new("/docs").url("/openapi.json", openapi)).layer(map_response(known_or_problem))
}

/// The UI's own answer for a file that it does not have is empty.
async fn known_or_problem(response: Response) -> Response {
    if response.status() == StatusCode::NOT_FOUND { not_found().await.into_response() } else { response }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use axum::http::header::LOCATION;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use utoipa::openapi::{InfoBuilder, OpenApiBuilder};

    use super::*;

    async fn get(uri: &str) -> Response {
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
    async fn a_file_that_is_not_there_is_a_problem() {
        let response = get("/docs/nothing").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
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
