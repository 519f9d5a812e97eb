//! The accept loop (rules R18).
//!
//! hyper's own header timeout does nothing without a timer, and `axum::serve` installs none: a client that
//! sends one byte a minute would hold its connection for ever. Hence this loop, with a limit on everything.

mod accept;
mod activity;
mod answer;
mod connection;
mod descriptors;
mod stall;

use std::io;
use std::net::SocketAddr;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::accept::Acceptor;
pub(super) use self::activity::Patience;
use self::connection::Server;
use super::limits::Limits;

/// Connections that wait in the kernel until they are accepted; it may allow fewer (`net.core.somaxconn`).
const BACKLOG_CONNECTIONS: u32 = 4_096;

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

/// Listens for what [`serve`] serves: with a long backlog, and with [`Limits::send_buffer_bytes`] a connection.
///
/// # Errors
///
/// The address is taken, or not this machine's.
pub fn bind(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if limits.send_buffer_bytes > 0 {
        // Connections inherit it from the listener.
        socket.set_send_buffer_size(limits.send_buffer_bytes)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG_CONNECTIONS)
}

/// Serves `router` on `listener` until `shutdown`, then lets requests in flight finish.
///
/// Speaks HTTP/1.1 and HTTP/2 without TLS. Requests carry the [`super::peer::Peer`] that they came from. A handler that
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
    descriptors::provide(limits.connections_max);
    let mut acceptor = Acceptor::new(listener, limits);
    let server = Server::new(builder(limits), router, limits, shutdown.clone());
    let (connections, cut) = (TaskTracker::new(), CancellationToken::new());
    while let Some((stream, address, occupied)) = shutdown.run_until_cancelled(acceptor.next()).await {
        let connection = server.clone().connection(stream, address, occupied);
        connections.spawn(cut.clone().run_until_cancelled_owned(connection));
    }
    // A closed port sends new clients elsewhere at once.
    drop(acceptor);
    connections.close();
    if tokio::time::timeout(limits.drain(), connections.wait()).await.is_ok() {
        return Ok(());
    }
    let running = connections.len();
    cut.cancel();
    connections.wait().await;
    Err(ServeError::NotDrained { connections: running, drain_ms: limits.drain_ms })
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // Runs from one request to the next as well; `Activity` times the head itself.
        .header_read_timeout(limits.idle().max(limits.header_read_timeout()))
        .max_headers(limits.headers_max)
        .max_buf_size(usize::try_from(limits.headers_bytes_max).unwrap_or(usize::MAX).max(8192));
    let keep_alive = limits.http2_keep_alive();
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

#[cfg(test)]
mod tests;
