//! A process without descriptors: a test of its own, because the limit holds for all of a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use chassis::http::{Limits, bind, serve};
use nix::sys::resource::{Resource, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

const DESCRIPTORS_MAX: u64 = 64;

#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn lines_with(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().filter(|line| line.contains(text)).count()
    }
}

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes every descriptor that is left.
fn exhaust() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn an_outage_of_descriptors_is_one_line_at_its_start_and_one_at_its_end() {
    setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_MAX, DESCRIPTORS_MAX).unwrap();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();

    let limits = Limits::default();
    let listener = bind("127.0.0.1:0".parse().unwrap(), &limits).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "hello" }));
    tokio::spawn(async move { serve(listener, router, &limits, CancellationToken::new()).await });

    let sockets = [TcpSocket::new_v4().unwrap(), TcpSocket::new_v4().unwrap()];
    // A connection that ends during the outage: the rest must not be cut short by it.
    let mut brief = TcpStream::connect(address).await.unwrap();
    brief.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    brief.read_exact(&mut [0; 12]).await.unwrap();
    let taken = exhaust();
    let mut waiting = Vec::new();
    for socket in sockets {
        let mut stream = socket.connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        waiting.push(stream);
    }
    let quiet = tokio::time::timeout(Duration::from_millis(500), waiting[0].peek(&mut [0; 1])).await;
    assert!(quiet.is_err(), "answered without a descriptor");
    assert_eq!(log.lines_with("no connection can be accepted"), 1, "{log:?}");
    assert_eq!(log.lines_with("connections are accepted again"), 0);

    drop((taken, brief));
    for stream in waiting {
        assert!(answer(stream).await.ends_with("hello"));
    }
    assert_eq!(log.lines_with("no connection can be accepted"), 1);
    assert_eq!(log.lines_with("connections are accepted again"), 1, "{log:?}");
    assert_eq!(log.lines_with("HTTP_CONNECTIONS_MAX is 4096, and the process may open 64 files"), 1, "{log:?}");
}
