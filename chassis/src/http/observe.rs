//! What every service adds to its routes: request ids, spans, metrics, and problems for the rest.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::Instrument as _;
use uuid::Uuid;

use super::head;
use super::limits::BodyLimits;
use super::problem::{Outcome, Problem};
use crate::tasks::payload_text;
use crate::trace::TraceParent;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const REQUEST_ID_BYTES_MAX: usize = 128;

/// The id of a request: the client's `x-request-id`, or one of ours; sent back, logged, and a request extension.
#[derive(Debug, Clone)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    fn of(request: &Request) -> Self {
        let given = request.headers().get(&REQUEST_ID);
        let usable = given.filter(|id| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        if let Some(id) = usable {
            return Self(id.clone());
        }
        let id = Uuid::now_v7().hyphenated().to_string();
        // Hexadecimal digits and hyphens are a header value.
        Self(HeaderValue::try_from(id).unwrap_or_else(|_impossible| HeaderValue::from_static("none")))
    }
}

/// Completes a service's routes: call it last, on everything merged.
///
/// Adds the request id, a span and metrics per request, 400, 404 and 405 problems, a 500 problem for a panic,
/// `X-Content-Type-Options`, `Cache-Control: no-store` where a handler says nothing else, and a body limit for axum's own extractors.
pub fn finish(router: Router) -> Router {
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BodyLimits::default().bytes_max))
        .layer(from_fn(observe))
}

/// 404 for a path that no route matches.
pub(super) async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", "there is nothing at this address")
        .outcome(Outcome::NotExecuted)
}

/// 405; axum adds `Allow`.
async fn method_not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method-not-allowed",
        "Method not allowed",
        "this address does not take this method; Allow lists those it takes",
    )
    .outcome(Outcome::NotExecuted)
}

async fn observe(mut request: Request, next: Next) -> Response {
    let id = RequestId::of(&request);
    let trace = TraceParent::from_headers(request.headers());
    let method = method_label(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let mut observation = Observation::start(method, route);
    let span = tracing::info_span!(
        "request",
        http.method = method,
        http.route = observation.route(),
        request.id = id.as_str(),
        trace.id = trace.trace_id(),
    );
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(trace);
    let answer = async {
        match head::fault(&request) {
            Some(problem) => problem.into_response(),
            None => next.run(request).await,
        }
    };
    let answer = AssertUnwindSafe(answer.instrument(span.clone())).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|payload| {
        span.in_scope(|| {
            tracing::error!(panic = payload_text(payload.as_ref()), "a handler panicked");
        });
        Problem::internal_silent().outcome(Outcome::Unknown).into_response()
    });
    let status = response.status();
    span.in_scope(|| observation.finish(status));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.0);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What says nothing else is about this moment, and often about somebody.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Methods are an open set on the wire and a closed one in metrics.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The metrics of one request; when the client goes away first, it is counted as abandoned on drop.
struct Observation {
    method: &'static str,
    route: Option<MatchedPath>,
    started: Instant,
    finished: bool,
}

impl Observation {
    fn start(method: &'static str, route: Option<MatchedPath>) -> Self {
        metrics::gauge!("http_server_active_requests").increment(1.0);
        Self { method, route, started: Instant::now(), finished: false }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("unmatched", MatchedPath::as_str)
    }

    fn finish(&mut self, status: StatusCode) {
        self.finished = true;
        let seconds = self.started.elapsed().as_secs_f64();
        metrics::histogram!(
            "http_server_request_duration_seconds",
            "method" => self.method,
            "route" => self.route().to_owned(),
            "status" => status.as_str().to_owned(),
        )
        .record(seconds);
        let duration_ms = seconds * 1000.0;
        tracing::debug!(status = status.as_u16(), duration_ms, "request answered");
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        metrics::gauge!("http_server_active_requests").decrement(1.0);
        if !self.finished {
            metrics::counter!("http_server_abandoned_requests_total", "route" => self.route().to_owned()).increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::ALLOW;
    use axum::routing::{get, post};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::metrics::Metrics;

    fn app() -> Router {
        let routes = Router::new().route("/things/{id}", get(|| async { "thing" }).put(|| async { "put" })).route(
            "/boom",
            post(|| async {
                if true {
                    panic!("boom")
                }
            }),
        );
        finish(routes)
    }

    async fn send(method: &str, uri: &str) -> Response {
        let request = Request::builder().method(method).uri(uri).header("x-request-id", "r-1");
        app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn code(response: Response) -> String {
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        body["code"].as_str().unwrap().to_owned()
    }

    #[tokio::test]
    async fn every_answer_carries_the_request_id_and_forbids_sniffing() {
        for uri in ["/things/1", "/nothing"] {
            let response = send("GET", uri).await;
            assert_eq!(response.headers()["x-request-id"], "r-1");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            assert_eq!(response.headers()["cache-control"], "no-store");
        }
        let request = Request::get("/things/1").header("x-request-id", "two words");
        let response = app().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap();
        assert_eq!(id.parse::<Uuid>().unwrap().get_version_num(), 7);
    }

    #[tokio::test]
    async fn what_no_route_takes_is_a_problem() {
        let response = send("GET", "/nothing").await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(code(response).await, "not-found");
        let response = send("DELETE", "/things/1").await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET,HEAD,PUT");
        assert_eq!(code(response).await, "method-not-allowed");
    }

    #[tokio::test]
    async fn a_panic_is_a_problem() {
        let response = send("POST", "/boom").await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(code(response).await, "internal");
    }

    #[tokio::test]
    async fn requests_are_measured_by_route_and_not_by_path() {
        let metrics = Metrics::install();
        send("GET", "/things/17").await;
        send("BREW", "/pot").await;
        let text = metrics.render();
        assert!(
            text.contains(
                r#"http_server_request_duration_seconds_count{method="GET",route="/things/{id}",status="200"}"#
            ),
            "{text}"
        );
        assert!(text.contains(r#"method="other",route="unmatched",status="404""#), "{text}");
        assert!(!text.contains("/things/17"), "{text}");
    }
}
