//! The W3C `traceparent`: one trace from the command through the log to the read model.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

/// The name of the header, in HTTP and in Kafka.
pub const HEADER: &str = "traceparent";

/// A position in a trace: which trace, which span is the parent, and whether it is sampled.
///
/// The text form is version 00 of the W3C Trace Context recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

/// The text is not a version 00 `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version 00 traceparent")]
pub struct Malformed;

impl TraceParent {
    /// A new, sampled trace.
    pub fn generate() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..), flags: 1 }
    }

    /// The same trace with a new span.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span: fastrand::u64(1..), ..*self }
    }

    /// The one in `headers`; a missing or malformed one starts a new trace, as the recommendation asks.
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
        given.and_then(|text| text.parse().ok()).unwrap_or_else(Self::generate)
    }

    /// The trace id, 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split('-');
        let (Some("00"), Some(trace), Some(span), Some(flags), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed);
        };
        if trace.len() != 32 || span.len() != 16 || flags.len() != 2 {
            return Err(Malformed);
        }
        // `from_str_radix` takes a sign and capitals; the recommendation takes neither.
        let strict = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        if ![trace, span, flags].iter().all(|part| part.chars().all(strict)) {
            return Err(Malformed);
        }
        let trace = u128::from_str_radix(trace, 16).map_err(|_not_hex| Malformed)?;
        let span = u64::from_str_radix(span, 16).map_err(|_not_hex| Malformed)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_not_hex| Malformed)?;
        if trace == 0 || span == 0 {
            return Err(Malformed);
        }
        Ok(Self { trace, span, flags })
    }
}

/// The position that [`crate::http::finish`] found or started, so that log and handler agree on it; without
/// it, [`TraceParent::from_headers`].
impl<S: Send + Sync> FromRequestParts<S> for TraceParent {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().copied();
        Ok(known.unwrap_or_else(|| Self::from_headers(&parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn text_goes_round() {
        let parent: TraceParent = EXAMPLE.parse().unwrap();
        assert_eq!(parent.to_string(), EXAMPLE);
        let child = parent.child();
        assert_eq!(child.trace_id(), parent.trace_id());
        assert_ne!(child, parent);
        let fresh = TraceParent::generate();
        assert_eq!(fresh.to_string().parse(), Ok(fresh));
    }

    #[test]
    fn anything_but_the_exact_form_is_refused() {
        for text in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e473-+00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(Malformed), "{text}");
        }
    }

    #[tokio::test]
    async fn a_request_without_one_starts_a_trace() {
        let (mut parts, ()) = Request::builder().body(()).unwrap().into_parts();
        TraceParent::from_request_parts(&mut parts, &()).await.unwrap();
        let (mut parts, ()) = Request::builder().header(HEADER, EXAMPLE).body(()).unwrap().into_parts();
        let parent = TraceParent::from_request_parts(&mut parts, &()).await.unwrap();
        assert_eq!(parent.to_string(), EXAMPLE);
    }
}
