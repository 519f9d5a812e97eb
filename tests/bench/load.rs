//! The load: HTTP/1.1 over kept-alive connections, written and read by hand, because every cycle of it is taken from the
//! services on the same cores.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::report::percentile_ms;

/// A connection on which one request follows another.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

/// An answer as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) head: &'a str,
    pub(crate) body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The value of a header, whose name is given in lower case with its colon.
    pub(crate) fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }

    /// The id in `Location: /orders/…`.
    pub(crate) fn order_id(&self) -> Option<String> {
        Some(self.header("location:")?.strip_prefix("/orders/")?.to_owned())
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line =
        head.lines().find(|line| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name)))?;
    Some(line[name.len()..].trim())
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, request: Vec::new(), received: Vec::with_capacity(16 * 1024) }
    }

    /// Sends what `write` writes, and reads the whole answer.
    pub(crate) async fn ask(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Answer<'_> {
        self.request.clear();
        write(&mut self.request);
        self.stream.write_all(&self.request).await.unwrap();
        self.received.clear();
        let (head_len, length) = loop {
            assert!(self.stream.read_buf(&mut self.received).await.unwrap() > 0, "the server hung up");
            let Some(at) = self.received.windows(4).position(|end| end == b"\r\n\r\n") else { continue };
            let head = str::from_utf8(&self.received[..at]).unwrap();
            break (at + 4, header(head, "content-length:").map_or(0, |length| length.parse().unwrap()));
        };
        while self.received.len() < head_len + length {
            assert!(self.stream.read_buf(&mut self.received).await.unwrap() > 0, "the server hung up");
        }
        let head = str::from_utf8(&self.received[..head_len]).unwrap();
        let status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap();
        Answer { status, head, body: &self.received[head_len..head_len + length] }
    }
}

/// A `GET`.
pub(crate) fn get(request: &mut Vec<u8>, path: &str) {
    request.extend_from_slice(b"GET ");
    request.extend_from_slice(path.as_bytes());
    request.extend_from_slice(b" HTTP/1.1\r\nhost: b\r\n\r\n");
}

/// A `POST` of JSON, with more header lines that end themselves.
pub(crate) fn post(request: &mut Vec<u8>, path: &str, headers: &str, body: &str) {
    request.extend_from_slice(b"POST ");
    request.extend_from_slice(path.as_bytes());
    request.extend_from_slice(b" HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\n");
    request.extend_from_slice(headers.as_bytes());
    request.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    request.extend_from_slice(body.as_bytes());
}

/// What a load met.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    /// Half were answered within.
    pub(crate) p50_ms: f64,
    /// All but one in a hundred were answered within.
    pub(crate) p99_ms: f64,
    /// Whatever was kept of the answers.
    pub(crate) kept: Vec<String>,
}

/// So many connections, each of which asks again as soon as it is answered, until the time is over or `write` has nothing
/// more to ask. Every answer must have the status `expected`.
pub(crate) async fn closed_loop<W, K>(
    addr: SocketAddr,
    connections: usize,
    round: Duration,
    expected: u16,
    write: W,
    keep: K,
) -> Load
where
    W: Fn(&mut Vec<u8>) -> bool + Send + Sync + 'static,
    K: Fn(Answer<'_>) -> Option<String> + Send + Sync + 'static,
{
    let shared = Arc::new((write, keep));
    // A thread of its own: tasks that never change threads wake each other without the kernel.
    let measured = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut clients = Vec::with_capacity(connections);
            for _connection in 0..connections {
                clients.push(Client::connect(addr).await);
            }
            let started = Instant::now();
            let tasks = clients.into_iter().map(|mut client| {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let (mut latencies, mut kept) = (Vec::new(), Vec::new());
                    while started.elapsed() < round {
                        let asked = Instant::now();
                        let mut more = true;
                        let answer = client.ask(|request| {
                            more = (shared.0)(request);
                            if !more {
                                get(request, "/health/live");
                            }
                        });
                        let answer = answer.await;
                        if !more {
                            break;
                        }
                        latencies.push(asked.elapsed().as_secs_f64());
                        let told = || format!("{} {}", answer.head, String::from_utf8_lossy(answer.body));
                        assert_eq!(answer.status, expected, "{}", told());
                        kept.extend((shared.1)(answer));
                    }
                    (latencies, kept)
                })
            });
            let ended = futures_util::future::join_all(tasks).await;
            (ended, started.elapsed().as_secs_f64())
        })
    });
    let (ended, seconds) = measured.await.unwrap();
    let (mut latencies, mut kept) = (Vec::new(), Vec::new());
    for connection in ended {
        let (these, those) = connection.unwrap();
        latencies.extend(these);
        kept.extend(those);
    }
    Load {
        rate: latencies.len() as f64 / seconds,
        p50_ms: percentile_ms(&mut latencies, 50),
        p99_ms: percentile_ms(&mut latencies, 99),
        kept,
    }
}
