use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::routing::{get, post};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::admission::Admission;
use super::super::extract::RawJson;
use super::super::problem::Problem;
use super::*;

mod heads;

mod http2;

mod sharing;

struct Running {
    addr: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServeError>>,
}

async fn start(router: Router, limits: Limits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    let server = tokio::spawn(async move { serve(listener, router, &limits, token).await });
    Running { addr, shutdown, server }
}

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

/// Everything until the server closes; a reset counts as closed.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn clients_that_never_finish_a_request_are_cut() {
    let limits = Limits { header_read_timeout_ms: 100, ..Limits::default() };
    let running = start(hello(), limits).await;
    // Nothing at all; what may become HTTP/2; half a head; an HTTP/2 connection without a stream.
    for opening in ["", "PRI", "GET / HTTP/1.1\r\nhost: x\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        send(&mut stream, opening).await;
        tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut Vec::new()))
            .await
            .unwrap_or_else(|_| panic!("still open after {opening:?}"))
            .ok();
    }
}

#[tokio::test]
async fn a_request_in_flight_at_shutdown_finishes_and_idle_connections_close() {
    let (entered, wait_entered) = oneshot::channel();
    let (release, released) = oneshot::channel::<()>();
    let once = Arc::new(tokio::sync::Mutex::new(Some((entered, released))));
    let router = hello().route(
        "/slow",
        get(move || async move {
            let (entered, released) = once.lock().await.take().unwrap();
            entered.send(()).unwrap();
            released.await.unwrap();
            "done"
        }),
    );
    let running = start(router, Limits::default()).await;

    let mut idle = TcpStream::connect(running.addr).await.unwrap();
    send(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");

    let mut busy = TcpStream::connect(running.addr).await.unwrap();
    send(&mut busy, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    wait_entered.await.unwrap();

    running.shutdown.cancel();
    assert!(rest(&mut idle).await.ends_with("hello"));
    assert!(!running.server.is_finished());
    release.send(()).unwrap();
    assert!(rest(&mut busy).await.ends_with("done"));
    running.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_outlives_the_drain_is_cut_and_counted() {
    let (entered, mut wait_entered) = tokio::sync::mpsc::channel(1);
    let router = Router::new().route(
        "/",
        get(move || async move {
            entered.send(()).await.unwrap();
            std::future::pending::<()>().await;
        }),
    );
    let running = start(router, Limits { drain_ms: 50, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    send(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    wait_entered.recv().await.unwrap();
    running.shutdown.cancel();
    let error = running.server.await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "1 connections were cut after 50 ms of draining");
}

#[tokio::test]
async fn a_head_with_too_many_fields_is_refused() {
    let limits = Limits { headers_max: 8, ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let fields: String = (0..9).map(|n| format!("x-{n}: 1\r\n")).collect();
    send(&mut stream, &format!("GET / HTTP/1.1\r\nhost: x\r\n{fields}\r\n")).await;
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_connection_beyond_the_limit_waits_for_another_to_close() {
    let limits = Limits { connections_max: 1, ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut first = TcpStream::connect(running.addr).await.unwrap();
    send(&mut first, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.unwrap();

    let mut second = TcpStream::connect(running.addr).await.unwrap();
    send(&mut second, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let waited = tokio::time::timeout(Duration::from_millis(100), second.read(&mut answer)).await;
    assert!(waited.is_err(), "the second connection was served beside the first");
    drop(first);
    assert!(rest(&mut second).await.ends_with("hello"));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_is_cut() {
    let router = Router::new().route(
        "/",
        get(|| async {
            let endless = futures_util::stream::repeat_with(|| Ok::<_, Infallible>("x".repeat(65_536)));
            Body::from_stream(endless)
        }),
    );
    let running = start(router, Limits { write_stall_ms: 100, ..Limits::default() }).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    send(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    running.shutdown.cancel();
    // The drain has nobody to wait for.
    tokio::time::timeout(Duration::from_secs(5), running.server).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn bodies_that_never_come_hold_no_permit() {
    let door = Admission::new("orders", 1);
    let entered = door.clone();
    let router = Router::new().route(
        "/",
        post(move |body: RawJson<serde_json::Value>| async move {
            let _permit = entered.try_enter()?;
            Ok::<_, Problem>(body.bytes)
        }),
    );
    let running = start(router, Limits { bodies_max: 8, ..Limits::default() }).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    let mut slow = Vec::new();
    for _ in 0..32 {
        let mut stream = TcpStream::connect(running.addr).await.unwrap();
        send(&mut stream, &format!("{head}content-length: 9\r\n\r\n[")).await;
        slow.push(stream);
    }
    // The oldest give their places to the newest.
    for stream in slow.iter_mut().take(24) {
        let answer = rest(stream).await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"overloaded\""), "{answer}");
    }
    let mut honest = TcpStream::connect(running.addr).await.unwrap();
    send(&mut honest, &format!("{head}content-length: 2\r\n\r\n")).await;
    send(&mut honest, "[]").await;
    assert!(rest(&mut honest).await.ends_with("[]"));
}
