//! New connections: how many there may be, and how many of one peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::super::limits::Limits;
use super::super::peer::{Share, Shares};
use super::super::proxies::Proxies;

/// How long the loop rests when the process cannot take another connection (`EMFILE` and its kin).
const REST: Duration = Duration::from_millis(100);

/// Takes connections from a listener within the limits.
#[derive(Debug)]
pub(super) struct Acceptor {
    listener: TcpListener,
    connections: Arc<Semaphore>,
    shares: Shares,
    proxies: Proxies,
    outage: Option<Outage>,
}

/// The time since connections cannot be accepted.
#[derive(Debug)]
struct Outage {
    began: Instant,
    failures: u64,
}

/// What a connection occupies until its end.
#[derive(Debug)]
pub(super) struct Occupied {
    _permit: OwnedSemaphorePermit,
    _share: Share,
    open: metrics::Gauge,
}

impl Drop for Occupied {
    fn drop(&mut self) {
        self.open.decrement(1.0);
    }
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, limits: &Limits) -> Self {
        Self {
            listener,
            connections: Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS))),
            shares: Shares::new(limits.connections_per_peer_max),
            proxies: limits.proxies(),
            outage: None,
        }
    }

    /// The next connection, once there is room for one. Never fails: what can fail is waited out.
    pub(super) async fn next(&mut self) -> (TcpStream, SocketAddr, Occupied) {
        loop {
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else {
                // Nobody closes this semaphore.
                std::future::pending().await
            };
            match self.listener.accept().await {
                Ok((stream, address)) => {
                    self.accepts_again();
                    let Some(share) = self.shares.take(self.proxies.peer_of_connection(address.ip())) else {
                        metrics::counter!("http_connections_refused_total").increment(1);
                        tracing::debug!(%address, "the peer has as many connections as one peer may");
                        continue;
                    };
                    let open = metrics::gauge!("http_connections_open");
                    open.increment(1.0);
                    return (stream, address, Occupied { _permit: permit, _share: share, open });
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    // Out of descriptors or memory: accepting again at once would spin on the same error.
                    drop(permit);
                    self.cannot_accept(&error);
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }

    fn cannot_accept(&mut self, error: &std::io::Error) {
        let outage = self.outage.get_or_insert_with(|| {
            tracing::error!(%error, "no connection can be accepted; trying again until one can");
            Outage { began: Instant::now(), failures: 0 }
        });
        outage.failures += 1;
    }

    fn accepts_again(&mut self) {
        if let Some(Outage { began, failures }) = self.outage.take() {
            let outage_ms = began.elapsed().as_millis();
            tracing::info!(outage_ms, failures, "connections are accepted again");
        }
    }
}

fn is_about_one_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}
