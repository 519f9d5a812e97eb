//! Extractors whose every rejection is a [`Problem`].

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body;
use super::problem::Problem;

/// A JSON body; as a response, the JSON of its value.
///
/// Rejections: 415 `unsupported-media-type`, 413 `body-too-large`, 408 `body-too-slow`, 400
/// `malformed-json`, 422 `invalid-body` with a JSON Pointer to the field at fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

/// A JSON body that may be absent; no body and an empty one are `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptionalJson<T>(pub Option<T>);

/// A JSON body together with its exact bytes, for a fingerprint.
#[derive(Debug, Clone)]
pub struct RawJson<T> {
    /// The decoded body.
    pub value: T,
    /// The body as it came.
    pub bytes: Bytes,
}

/// [`RawJson`] for a body that may be absent.
#[derive(Debug, Clone)]
pub struct OptionalRawJson<T> {
    /// The decoded body, `None` when it is absent or empty.
    pub value: Option<T>,
    /// The body as it came.
    pub bytes: Bytes,
}

/// The parameters of the path; 400 `invalid-id` when one does not parse.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

/// The query string; 400 `invalid-query` naming the parameter when one is unknown or does not parse.
///
/// Unknown ones are only found when `T` has `#[serde(deny_unknown_fields)]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for RawJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        body::require_json(request.headers())?;
        let bytes = body::read(request).await?;
        let value = body::decode(&bytes)?;
        Ok(Self { value, bytes })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalRawJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let says_json = body::require_json(request.headers());
        let bytes = body::read(request).await?;
        if bytes.is_empty() {
            return Ok(Self { value: None, bytes });
        }
        says_json?;
        let value = Some(body::decode(&bytes)?);
        Ok(Self { value, bytes })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        RawJson::from_request(request, state).await.map(|raw| Self(raw.value))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for OptionalJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        OptionalRawJson::from_request(request, state).await.map(|raw| Self(raw.value))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status().is_client_error() => {
                Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-id", "Invalid identifier", rejection.body_text()))
            }
            Err(rejection) => Err(Problem::internal(&rejection)),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        serde_path_to_error::deserialize(serde_urlencoded::Deserializer::new(pairs))
            .map(Self)
            .map_err(|error| invalid_query(&error))
    }
}

fn invalid_query(error: &serde_path_to_error::Error<serde::de::value::Error>) -> Problem {
    let detail = error.inner().to_string();
    let path = error.path().to_string();
    // Without a path (a missing or repeated parameter) the message quotes the name.
    let parameter =
        if path == "." || path == "?" { detail.split('`').nth(1).unwrap_or_default().to_owned() } else { path };
    let whole = if parameter.is_empty() { detail.clone() } else { format!("{parameter}: {detail}") };
    Problem::new(StatusCode::BAD_REQUEST, "invalid-query", "Invalid query", whole).error(parameter, "invalid", detail)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use axum::http::header::CONTENT_TYPE;
    use futures_util::stream;
    use serde::Deserialize;

    use super::super::limits::BodyLimits;
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u8>,
    }

    fn post(content_type: Option<&str>, body: impl Into<Body>) -> Request {
        let mut request = Request::post("/");
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        request.body(body.into()).unwrap()
    }

    async fn query(query: &str) -> Result<Page, Problem> {
        let (mut parts, ()) = Request::builder().uri(format!("/?{query}")).body(()).unwrap().into_parts();
        Query::from_request_parts(&mut parts, &()).await.map(|Query(page)| page)
    }

    #[tokio::test]
    async fn the_raw_bytes_are_kept() {
        let text = "{ \"limit\": 3 }";
        let raw = RawJson::<Page>::from_request(post(Some("application/json"), text), &()).await.unwrap();
        assert_eq!(raw.value.limit, Some(3));
        assert_eq!(raw.bytes, text);
    }

    #[tokio::test]
    async fn an_absent_body_is_none_and_needs_no_type() {
        let OptionalJson(none) = OptionalJson::<Page>::from_request(post(None, ""), &()).await.unwrap();
        assert!(none.is_none());
        let problem = OptionalJson::<Page>::from_request(post(None, "{}"), &()).await.unwrap_err();
        assert_eq!(problem.code(), "unsupported-media-type");
        let problem = Json::<Page>::from_request(post(Some("text/plain"), "{}"), &()).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), 415);
    }

    #[tokio::test]
    async fn a_large_body_is_refused() {
        let body = vec![b' '; 65_537];
        let problem = Json::<Page>::from_request(post(Some("application/json"), body), &()).await.unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (413, "body-too-large"));
    }

    #[tokio::test]
    async fn a_slow_body_is_cut() {
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let mut request = post(Some("application/json"), never);
        let read_timeout = Duration::from_millis(20);
        request.extensions_mut().insert(BodyLimits { bytes_max: 9, read_timeout, ..BodyLimits::default() });
        let problem = Json::<Page>::from_request(request, &()).await.unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (408, "body-too-slow"));
    }

    #[tokio::test]
    async fn a_bad_query_parameter_is_named() {
        assert_eq!(query("limit=3").await.unwrap().limit, Some(3));
        for (text, name) in
            [("limit=x", "limit"), ("limit=300", "limit"), ("lmit=3", "lmit"), ("limit=1&limit=2", "limit")]
        {
            let problem = query(text).await.unwrap_err();
            let body: serde_json::Value = serde_json::from_slice(&problem.body()).unwrap();
            assert_eq!((problem.status().as_u16(), problem.code()), (400, "invalid-query"), "{text}");
            assert_eq!(body["errors"][0]["pointer"], name, "{text}: {body}");
        }
    }
}
