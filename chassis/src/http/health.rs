//! Probes: live, ready, started; and the client that a `healthcheck` subcommand needs.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long one check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long [`probe`] waits in all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// What a failing check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// The process cannot do its work.
    Vital,
    /// It does its work, but not as well as it should.
    Minor,
}

type Fact = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Value> + Send>> + Send + Sync>;

/// The health of a process; clones share it.
#[derive(Clone, Default)]
pub struct Health {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    checks: Mutex<Vec<(&'static str, Weight, Check)>>,
    facts: Mutex<Vec<(&'static str, Fact)>>,
    draining: AtomicBool,
    started: AtomicBool,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").field("draining", &self.is_draining()).finish_non_exhaustive()
    }
}

impl Health {
    /// A process with nothing to check yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check to readiness. It runs on every probe and has one second; its error is shown as is, so
    /// it must hold no secret.
    pub fn register<F, Fut>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name, Weight::Vital, check);
    }

    /// As [`Health::register`], for what makes the process worse and not useless, such as data that is old: while this check
    /// fails the process is ready, and says that it is `degraded` and why.
    pub fn warn<F, Fut>(&self, name: &'static str, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.add(name, Weight::Minor, check);
    }

    fn add<F, Fut>(&self, name: &'static str, weight: Weight, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.checks().push((name, weight, check));
    }

    /// Adds a fact to what readiness shows: something that people should know and that makes nobody unready. It has one
    /// second, and is left out when it takes longer.
    pub fn tell<F, Fut>(&self, name: &'static str, fact: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Value> + Send + 'static,
    {
        let fact: Fact = Arc::new(move || Box::pin(fact()));
        // As with the checks.
        self.inner.facts.lock().unwrap_or_else(PoisonError::into_inner).push((name, fact));
    }

    /// Makes the process not ready, for good: call it when draining starts, before connections close.
    pub fn draining(&self) {
        self.inner.draining.store(true, Ordering::Release);
    }

    /// Whether [`Health::draining`] was called.
    pub fn is_draining(&self) -> bool {
        self.inner.draining.load(Ordering::Acquire)
    }

    /// Serves `/health/live` (200 while the process lives), `/health/ready` (200 when every vital check passes)
    /// and `/health/startup` (200 once it was ready for the first time).
    pub fn router(&self) -> Router {
        let (ready, startup) = (self.clone(), self.clone());
        Router::new()
            .route("/health/live", get(|| async { axum::Json(json!({ "status": "live" })) }))
            .route("/health/ready", get(move || async move { ready.ready().await }))
            .route("/health/startup", get(move || async move { startup.startup().await }))
    }

    fn checks(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, Weight, Check)>> {
        // A list of checks is whole even when somebody panicked beside it.
        self.inner.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ready(&self) -> Response {
        let checks = self.checks().clone();
        let facts = self.inner.facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let checked = join_all(checks.iter().map(|(name, weight, check)| async move {
            let result = match tokio::time::timeout(CHECK_TIMEOUT, check()).await {
                Ok(result) => result,
                Err(_elapsed) => Err(format!("no answer within {} ms", CHECK_TIMEOUT.as_millis())),
            };
            (*name, *weight, result)
        }));
        let told = join_all(
            facts
                .iter()
                .map(|(name, fact)| async move { (*name, tokio::time::timeout(CHECK_TIMEOUT, fact()).await.ok()) }),
        );
        // Beside each other, so that the whole answer has one second.
        let (results, told) = tokio::join!(checked, told);
        let (mut ready, mut degraded) = (!self.is_draining(), false);
        let mut shown = Map::new();
        for (name, weight, result) in results {
            match weight {
                Weight::Vital => ready &= result.is_ok(),
                Weight::Minor => degraded |= result.is_err(),
            }
            shown.insert(name.to_owned(), Value::String(result.err().unwrap_or_else(|| "ok".to_owned())));
        }
        if ready {
            self.inner.started.store(true, Ordering::Release);
        }
        let (code, status) = match (ready, self.is_draining()) {
            (true, _) if degraded => (StatusCode::OK, "degraded"),
            (true, _) => (StatusCode::OK, "ready"),
            (false, true) => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "not-ready"),
        };
        let mut document = json!({ "status": status, "checks": shown });
        for (name, fact) in told {
            if let Some(fact) = fact {
                document[name] = fact;
            }
        }
        (code, axum::Json(document)).into_response()
    }

    async fn startup(&self) -> Response {
        if self.inner.started.load(Ordering::Acquire) {
            return axum::Json(json!({ "status": "started" })).into_response();
        }
        self.ready().await
    }
}

/// Why a probe says no.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers.
    #[error("{addr} cannot be reached")]
    Unreachable {
        /// Where we asked.
        addr: SocketAddr,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The answer takes too long.
    #[error("{addr} did not answer within {} ms", PROBE_TIMEOUT.as_millis())]
    Slow {
        /// Where we asked.
        addr: SocketAddr,
    },
    /// The service answers, but is not ready.
    #[error("not ready: {answer}")]
    NotReady {
        /// The first line of the answer.
        answer: String,
    },
}

/// Asks the service that listens on `addr` whether it is ready; an unspecified address means this host.
///
/// # Errors
///
/// When it cannot be reached, does not answer within two seconds, or answers anything but 200.
pub async fn probe(addr: SocketAddr) -> Result<(), Error> {
    let addr = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::from((Ipv4Addr::LOCALHOST, addr.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::from((Ipv6Addr::LOCALHOST, addr.port())),
        _ => addr,
    };
    match tokio::time::timeout(PROBE_TIMEOUT, status_line(addr)).await {
        Err(_elapsed) => Err(Error::Slow { addr }),
        Ok(Err(source)) => Err(Error::Unreachable { addr, source }),
        Ok(Ok(line)) if line.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(Ok(answer)) => Err(Error::NotReady { answer }),
    }
}

async fn status_line(addr: SocketAddr) -> std::io::Result<String> {
    const ANSWER_BYTES_MAX: u64 = 4096;
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /health/ready HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or("an empty answer").to_owned())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::*;
    use crate::http::{Limits, serve};

    async fn ask(health: &Health, path: &str) -> (u16, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.router().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_failing_check_is_shown_and_liveness_does_not_care() {
        let health = Health::new();
        let up = Arc::new(AtomicBool::new(false));
        let seen = up.clone();
        health.register("database", move || {
            let up = seen.load(Ordering::Acquire);
            async move { if up { Ok(()) } else { Err("refused".to_owned()) } }
        });
        let (status, body) = ask(&health, "/health/ready").await;
        assert_eq!((status, &body["checks"]["database"]), (503, &json!("refused")));
        assert_eq!(ask(&health, "/health/startup").await.0, 503);
        assert_eq!(ask(&health, "/health/live").await.0, 200);

        up.store(true, Ordering::Release);
        assert_eq!(ask(&health, "/health/ready").await.0, 200);
        up.store(false, Ordering::Release);
        assert_eq!(ask(&health, "/health/startup").await.0, 200, "it had started");

        up.store(true, Ordering::Release);
        health.draining();
        let (status, body) = ask(&health, "/health/ready").await;
        assert_eq!((status, &body["status"]), (503, &json!("draining")));
    }

    #[tokio::test]
    async fn a_minor_check_that_fails_degrades_and_makes_nobody_unready() {
        let health = Health::new();
        health.register("database", || async { Ok(()) });
        health.warn("freshness", || async { Err("37 s old".to_owned()) });
        let (status, body) = ask(&health, "/health/ready").await;
        assert_eq!((status, &body["status"]), (200, &json!("degraded")));
        assert_eq!(body["checks"], json!({ "database": "ok", "freshness": "37 s old" }));
        assert_eq!(ask(&health, "/health/startup").await.0, 200);
    }

    #[tokio::test(start_paused = true)]
    async fn facts_and_checks_that_hang_take_one_second_together() {
        let health = Health::new();
        health.register("broker", std::future::pending);
        health.tell("one", std::future::pending);
        health.tell("other", std::future::pending);
        let begun = tokio::time::Instant::now();
        let (status, body) = ask(&health, "/health/ready").await;
        assert_eq!((status, body.get("one")), (503, None));
        assert_eq!(begun.elapsed().as_secs(), CHECK_TIMEOUT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_hangs_fails_at_its_deadline() {
        let health = Health::new();
        health.register("broker", std::future::pending);
        let (status, body) = ask(&health, "/health/ready").await;
        assert_eq!((status, &body["checks"]["broker"]), (503, &json!("no answer within 1000 ms")));
    }

    #[tokio::test]
    async fn the_probe_says_what_the_service_says() {
        let health = Health::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let (router, token) = (health.router(), shutdown.clone());
        let server = tokio::spawn(async move { serve(listener, router, &Limits::default(), token).await });
        probe(SocketAddr::from(([0, 0, 0, 0], addr.port()))).await.unwrap();
        health.draining();
        assert!(matches!(probe(addr).await.unwrap_err(), Error::NotReady { .. }));
        shutdown.cancel();
        server.await.unwrap().unwrap();
        assert!(matches!(probe(addr).await.unwrap_err(), Error::Unreachable { .. }));
    }
}
