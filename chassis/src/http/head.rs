//! Heads of requests that a server must refuse (RFC 9112, 3.2 and 6.1), and that hyper lets pass.

use axum::extract::Request;
use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};

use super::peer::Peer;
use super::problem::{Outcome, Problem};

/// What is wrong with the head of a request that came over a connection.
pub(super) fn fault(request: &Request) -> Option<Problem> {
    // Every request that the server takes has a peer. One that a test hands to a router has no head to speak of.
    request.extensions().get::<Peer>()?;
    invalid_host(request).or_else(|| invalid_transfer_encoding(request.headers()))
}

fn invalid_host(request: &Request) -> Option<Problem> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let detail = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => "the request has more than one Host",
        (Some(host), None) if is_host(host) => return None,
        (Some(_), None) => "Host is not a name or an address with or without a port",
        // HTTP/2 has a field of its own for it, and HTTP/1.0 needs none.
        (None, _) if request.uri().authority().is_some() && request.version() >= Version::HTTP_2 => return None,
        (None, _) if request.version() < Version::HTTP_11 => return None,
        (None, _) => "the request has no Host",
    };
    Some(
        Problem::new(StatusCode::BAD_REQUEST, "invalid-host", "Invalid Host", detail)
            .outcome(Outcome::NotExecuted)
            .error("host", "invalid-host", detail),
    )
}

fn is_host(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let named_user = authority.as_str().contains('@');
    // A colon without a port is allowed; one with something else than a port is not.
    let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port_is_sound = port.is_empty() || port == ":" || authority.port_u16().is_some();
    !authority.host().is_empty() && !named_user && port_is_sound
}

/// How long a body is must be beyond doubt: who reads it otherwise sees another request behind it.
fn invalid_transfer_encoding(headers: &HeaderMap) -> Option<Problem> {
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter();
    let first = lines.next()?;
    if first.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && lines.next().is_none() {
        return None;
    }
    let detail = "Transfer-Encoding is something else than `chunked` once";
    Some(
        Problem::new(StatusCode::BAD_REQUEST, "invalid-header", "Invalid header", detail)
            .outcome(Outcome::NotExecuted)
            .error("transfer-encoding", "invalid-header", detail)
            .header(CONNECTION, HeaderValue::from_static("close")),
    )
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn code(version: Version, uri: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = Request::builder().version(version).uri(uri).extension(Peer::UNKNOWN);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        fault(&request.body(Body::empty()).unwrap()).map(|problem| problem.code())
    }

    #[test]
    fn a_request_has_one_host() {
        for host in ["x", "localhost:8000", "127.0.0.1", "[::1]:80", "a_b.example.", "x:"] {
            assert_eq!(code(Version::HTTP_11, "/", &[("host", host)]), None, "{host}");
        }
        for host in ["", "a/b", "a b", "user@x", "x:port", "x:99999", "[::1", "a,b/"] {
            assert_eq!(code(Version::HTTP_11, "/", &[("host", host)]), Some("invalid-host"), "{host}");
        }
        assert_eq!(code(Version::HTTP_11, "/", &[]), Some("invalid-host"));
        assert_eq!(code(Version::HTTP_11, "http://x/", &[]), Some("invalid-host"));
        assert_eq!(code(Version::HTTP_11, "/", &[("host", "x"), ("host", "x")]), Some("invalid-host"));
        assert_eq!(code(Version::HTTP_10, "/", &[]), None);
        assert_eq!(code(Version::HTTP_2, "http://x/", &[]), None);
        assert_eq!(code(Version::HTTP_2, "/", &[]), Some("invalid-host"));
    }

    #[test]
    fn a_body_is_chunked_once_or_not_at_all() {
        let host = ("host", "x");
        for sound in ["chunked", "Chunked "] {
            assert_eq!(code(Version::HTTP_11, "/", &[host, ("transfer-encoding", sound)]), None, "{sound}");
        }
        for odd in ["chunked, chunked", "gzip, chunked", "identity", "", "xchunked"] {
            let code = code(Version::HTTP_11, "/", &[host, ("transfer-encoding", odd)]);
            assert_eq!(code, Some("invalid-header"), "{odd}");
        }
        let twice = [host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(code(Version::HTTP_11, "/", &twice), Some("invalid-header"));
    }
}
