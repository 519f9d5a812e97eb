//! The accept loop (rules R18).
//!
//! hyper's own header timeout does nothing without a timer, and `axum::serve` installs none: a client that
//! sends one byte a minute would hold its connection for ever. Hence this loop, with a limit on everything.

mod stall;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::stall::Impatient;
use super::limits::{BodyLimits, Limits};
use super::peer::Peer;

/// How long the loop rests when the process cannot take another connection (`EMFILE` and its kin).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Why a server ended otherwise than by a drained shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Requests were still running when the drain time had passed; their connections were cut.
    #[error("{connections} connections were cut after {drain_ms} ms of draining")]
    NotDrained {
        /// How many.
        connections: usize,
        /// How long they had.
        drain_ms: u64,
    },
}

/// Serves `router` on `listener` until `shutdown`, then lets requests in flight finish.
///
/// Speaks HTTP/1.1 and HTTP/2 without TLS. Requests carry [`ConnectInfo<SocketAddr>`]. A handler that
/// streams must watch `shutdown` itself, or its connection is cut when the drain time is over.
///
/// # Errors
///
/// [`ServeError::NotDrained`] when the drain time was not enough.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let server = Server {
        builder: builder(limits),
        router,
        body_limits: limits.body(),
        first_request_timeout: limits.header_read_timeout(),
        write_stall: limits.write_stall(),
    };
    let mut tasks = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &connections) => accepted,
            Some(_joined) = tasks.join_next() => continue,
        };
        let (stream, peer, permit) = accepted;
        tasks.spawn(server.clone().connection(stream, peer, graceful.watcher(), permit));
    }
    // A closed port sends new clients elsewhere at once.
    drop(listener);
    drain(graceful, tasks, limits).await
}

async fn drain(graceful: GracefulShutdown, mut tasks: JoinSet<()>, limits: &Limits) -> Result<(), ServeError> {
    let drained = async {
        graceful.shutdown().await;
        while tasks.join_next().await.is_some() {}
    };
    let outcome = tokio::time::timeout(limits.drain(), drained).await;
    if outcome.is_ok() {
        return Ok(());
    }
    while tasks.try_join_next().is_some() {}
    let connections = tasks.len();
    tasks.shutdown().await;
    Err(ServeError::NotDrained { connections, drain_ms: limits.drain_ms })
}

/// The next connection, once there is room for one. Never fails: what can fail is waited out.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(permit) = Arc::clone(connections).acquire_owned().await else {
            // Nobody closes this semaphore.
            std::future::pending().await
        };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, permit),
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                // Out of descriptors or memory: accepting again at once would spin on the same error.
                tracing::error!(%error, "no connection can be accepted");
                drop(permit);
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout())
        .max_headers(limits.headers_max)
        .max_buf_size(usize::try_from(limits.headers_bytes_max).unwrap_or(usize::MAX).max(8192));
    let keep_alive = Duration::from_millis(limits.http2_keep_alive_ms);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(limits.headers_bytes_max)
        .max_pending_accept_reset_streams(limits.http2_resets_max)
        .max_local_error_reset_streams(limits.http2_resets_max)
        .keep_alive_interval(keep_alive)
        .keep_alive_timeout(keep_alive);
    builder
}

#[derive(Clone)]
struct Server {
    builder: Builder<TokioExecutor>,
    router: Router,
    body_limits: BodyLimits,
    first_request_timeout: Duration,
    write_stall: Duration,
}

impl Server {
    /// Runs one connection to its end; the permit ends with it.
    async fn connection(self, stream: TcpStream, peer: SocketAddr, watcher: Watcher, _permit: OwnedSemaphorePermit) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the peer left before the first byte");
            return;
        }
        let asked = Arc::new(AtomicBool::new(false));
        let service = {
            let (router, body_limits, asked) = (self.router, self.body_limits, Arc::clone(&asked));
            service_fn(move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(body_limits.clone());
                request.extensions_mut().insert(Peer::at(peer.ip()));
                request.extensions_mut().insert(ConnectInfo(peer));
                let router = router.clone();
                async move { Ok::<_, Infallible>(answer(router, request).await) }
            })
        };
        let stream = TokioIo::new(Impatient::new(stream, self.write_stall));
        let connection = self.builder.serve_connection(stream, service);
        let connection = watcher.watch(connection.into_owned());
        tokio::pin!(connection);
        // While the protocol is still being told from the first bytes, and on an HTTP/2 connection without
        // streams, no timeout of hyper applies; this one covers the time to the first request.
        tokio::select! {
            ended = &mut connection => return log_end(ended),
            () = tokio::time::sleep(self.first_request_timeout) => {}
        }
        if !asked.load(Ordering::Relaxed) {
            tracing::debug!(%peer, "no request arrived in time");
            return;
        }
        log_end(connection.await);
    }
}

async fn answer(router: Router, request: Request<Body>) -> axum::response::Response {
    match router.oneshot(request).await {
        Ok(response) => response,
        Err(impossible) => match impossible {},
    }
}

fn log_end<E: std::fmt::Display>(ended: Result<(), E>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests;
