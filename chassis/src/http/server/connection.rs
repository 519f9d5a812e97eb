//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::super::admission::overloaded;
use super::super::limits::{BodyLimits, Limits};
use super::super::proxies::Proxies;
use super::accept::Occupied;
use super::activity::{Activity, Overdue, Patience, Running};
use super::answer::Answer;
use super::stall::Impatient;

/// What every connection of a server needs.
#[derive(Debug, Clone)]
pub(super) struct Server {
    builder: Builder<TokioExecutor>,
    router: Router,
    body_limits: BodyLimits,
    proxies: Proxies,
    patience: Patience,
    shutdown: CancellationToken,
}

impl Server {
    pub(super) fn new(
        builder: Builder<TokioExecutor>,
        router: Router,
        limits: &Limits,
        shutdown: CancellationToken,
    ) -> Self {
        let (body_limits, proxies, patience) = (limits.body(), limits.proxies(), limits.patience());
        Self { builder, router, body_limits, proxies, patience, shutdown }
    }

    /// Runs one connection to its end.
    pub(super) async fn connection(self, stream: TcpStream, address: SocketAddr, _occupied: Occupied) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the peer left before the first byte");
            return;
        }
        let activity = Activity::new(self.patience);
        let stream = TokioIo::new(Impatient::new(stream, self.patience.stall, activity.clone()));
        let service = service_fn(|request: Request<Incoming>| {
            let running = activity.request_began(request.version() == Version::HTTP_2);
            let (server, address) = (self.clone(), address);
            async move { Ok::<_, Infallible>(server.answer(request, address, running).await) }
        });
        let mut connection = pin!(self.builder.serve_connection(stream, service));
        let mut look = pin!(tokio::time::sleep_until(Instant::now()));
        let mut leaving = false;
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return log_end(ended),
                () = self.shutdown.cancelled(), if !leaving => {
                    leaving = true;
                    activity.leave();
                    connection.as_mut().graceful_shutdown();
                }
                () = look.as_mut() => match activity.look(Instant::now()) {
                    Ok(next) => look.as_mut().reset(next),
                    Err(Overdue::Idle) if !leaving => {
                        leaving = true;
                        activity.leave();
                        connection.as_mut().graceful_shutdown();
                        look.as_mut().reset(Instant::now() + self.patience.farewell);
                    }
                    Err(overdue) => {
                        tracing::debug!(%address, ?overdue, "a connection is cut: its peer takes too long");
                        // HTTP/2 is told so (GOAWAY), if the peer takes that.
                        connection.as_mut().graceful_shutdown();
                        let _cut = tokio::time::timeout(self.patience.farewell, connection).await;
                        return;
                    }
                },
            }
        }
    }

    async fn answer(self, request: Request<Incoming>, address: SocketAddr, running: Running) -> Response<Answer> {
        let peer = self.proxies.peer_of_request(address.ip(), request.headers());
        let may_be_refused_late = request.method().is_safe();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.body_limits);
        request.extensions_mut().insert(peer);
        let mut response = match self.router.oneshot(request).await {
            Ok(response) => response,
            Err(impossible) => match impossible {},
        };
        let bytes = known_bytes(&response);
        if !running.activity.try_hold(bytes) {
            if may_be_refused_late {
                drop(response);
                let detail = "this connection has more answers to take than it may leave waiting";
                response = overloaded(detail.to_owned()).into_response();
            }
            running.activity.hold(known_bytes(&response));
        }
        let reserved = known_bytes(&response);
        response.map(|body| Answer::new(body, reserved, running))
    }
}

fn known_bytes(response: &Response) -> usize {
    usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX)
}

fn log_end(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
