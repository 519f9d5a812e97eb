//! A wire between a client and a server that a test can disturb: it goes silent, breaks, or takes no new connections.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// A TCP proxy on loopback.
#[derive(Debug)]
pub struct Wire {
    addr: SocketAddr,
    plan: Arc<watch::Sender<Plan>>,
    accepting: AbortHandle,
}

/// What happens to connections, which are counted in the order of their arrival.
#[derive(Debug, Clone, Copy, Default)]
struct Plan {
    arrived: u64,
    /// Connections before this one stay open and carry nothing any more.
    silent_before: u64,
    /// Connections before this one are closed.
    cut_before: u64,
    newcomers: Newcomers,
}

/// What happens to new connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Newcomers {
    /// They reach the server.
    #[default]
    Served,
    /// They are accepted and hear nothing.
    Silent,
    /// They are closed at once.
    Refused,
}

impl Wire {
    /// A wire to a server.
    ///
    /// # Panics
    ///
    /// When no port can be bound.
    pub async fn to(host: &str, port: u16) -> Self {
        let bound = TcpListener::bind("127.0.0.1:0").await.and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (addr, listener) = bound.unwrap_or_else(|error| panic!("no port for a wire: {error}"));
        let plan = Arc::new(watch::Sender::new(Plan::default()));
        let accepting = tokio::spawn(accept(listener, (host.to_owned(), port), Arc::clone(&plan))).abort_handle();
        Self { addr, plan, accepting }
    }

    /// Where clients connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leaves present connections open and carries nothing on them any more, in either direction.
    pub fn silence_present(&self) {
        self.plan.send_modify(|plan| plan.silent_before = plan.arrived);
    }

    /// Closes present connections.
    pub fn cut_present(&self) {
        self.plan.send_modify(|plan| plan.cut_before = plan.arrived);
    }

    /// Says what happens to new connections from now on.
    pub fn newcomers(&self, newcomers: Newcomers) {
        self.plan.send_modify(|plan| plan.newcomers = newcomers);
    }

    /// How many connections have arrived so far.
    pub fn arrived(&self) -> u64 {
        self.plan.borrow().arrived
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: (String, u16), plan: Arc<watch::Sender<Plan>>) {
    while let Ok((client, _from)) = listener.accept().await {
        let number = plan.borrow().arrived;
        plan.send_modify(|plan| plan.arrived += 1);
        let newcomers = plan.borrow().newcomers;
        if newcomers == Newcomers::Refused {
            continue;
        }
        let (server, mut plan) = (server.clone(), plan.subscribe());
        tokio::spawn(async move {
            if newcomers == Newcomers::Served {
                let Ok(server) = TcpStream::connect(server).await else { return };
                carry(client, server, number, plan).await;
            } else {
                let _wire_is_gone = plan.wait_for(|plan| plan.cut_before > number).await;
            }
        });
    }
}

/// Carries bytes until one side closes or the plan says otherwise.
async fn carry(mut client: TcpStream, mut server: TcpStream, number: u64, mut plan: watch::Receiver<Plan>) {
    let disturbed = plan.wait_for(|plan| plan.silent_before > number || plan.cut_before > number);
    tokio::select! {
        biased;
        _ = disturbed => {}
        _ended = copy_bidirectional(&mut client, &mut server) => return,
    }
    // Both sides stay open until the wire is cut or gone.
    let _wire_is_gone = plan.wait_for(|plan| plan.cut_before > number).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::timeout;

    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _from)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ended = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        addr
    }

    async fn answers(stream: &mut TcpStream) -> Option<bool> {
        let mut byte = [0];
        if stream.write_all(b"x").await.is_err() {
            return Some(false);
        }
        timeout(Duration::from_millis(200), stream.read(&mut byte)).await.ok().map(|read| matches!(read, Ok(1)))
    }

    #[tokio::test]
    async fn a_wire_carries_goes_silent_and_breaks() {
        let server = echo().await;
        let wire = Wire::to("127.0.0.1", server.port()).await;
        let mut present = TcpStream::connect(wire.addr()).await.unwrap();
        assert_eq!(answers(&mut present).await, Some(true));
        wire.silence_present();
        assert_eq!(answers(&mut present).await, None, "it is silent and open");
        let mut new = TcpStream::connect(wire.addr()).await.unwrap();
        assert_eq!(answers(&mut new).await, Some(true));
        wire.cut_present();
        assert_eq!(answers(&mut present).await, Some(false));
        wire.newcomers(Newcomers::Silent);
        let mut unheard = TcpStream::connect(wire.addr()).await.unwrap();
        assert_eq!(answers(&mut unheard).await, None);
        wire.newcomers(Newcomers::Refused);
        let mut refused = TcpStream::connect(wire.addr()).await.unwrap();
        assert_eq!(answers(&mut refused).await, Some(false));
        assert_eq!(wire.arrived(), 4);
    }
}
