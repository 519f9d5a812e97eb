//! Requests that no server should take, byte by byte.

use super::super::super::finish;
use super::*;

/// What a request is answered; the connection has to end within the time that a body has, or by itself.
async fn answer(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    send(&mut stream, request).await;
    tokio::time::timeout(Duration::from_secs(5), rest(&mut stream)).await.unwrap_or_else(|_| panic!("{request}: open"))
}

async fn echo() -> Running {
    let router = hello().route("/echo", post(|body: RawJson<serde_json::Value>| async move { body.bytes }));
    start(finish(router), Limits::default()).await
}

#[track_caller]
fn assert_problem(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    let folded = answer.to_ascii_lowercase();
    assert!(folded.contains("content-type: application/problem+json") && folded.contains("x-request-id"), "{answer}");
    assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
}

#[tokio::test]
async fn a_host_is_required_once_and_well_formed() {
    let running = echo().await;
    for hosts in ["", "host: a\r\nhost: a\r\n", "host: a/b\r\n", "host: a@b\r\n", "host:\r\n"] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        assert_problem(&answer(running.addr, &request).await, 400, "invalid-host");
    }
    let old = answer(running.addr, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.ends_with("hello"), "{old}");
}

#[tokio::test]
async fn a_declared_length_over_the_limit_is_refused_before_a_byte_comes() {
    let running = echo().await;
    for expect in ["", "expect: 100-continue\r\n"] {
        let request = format!(
            "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{expect}content-length: 1000000000\r\n\r\n"
        );
        assert_problem(&answer(running.addr, &request).await, 413, "body-too-large");
    }
    // A body that fits is still asked for.
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    send(&mut stream, &format!("{head}expect: 100-continue\r\ncontent-length: 2\r\n\r\n")).await;
    let mut invitation = [0; 25];
    stream.read_exact(&mut invitation).await.unwrap();
    assert_eq!(&invitation, b"HTTP/1.1 100 Continue\r\n\r\n");
    send(&mut stream, "[]").await;
    assert!(rest(&mut stream).await.ends_with("[]"));
}

#[tokio::test]
async fn an_ambiguous_length_and_a_compressed_body_are_refused() {
    let running = echo().await;
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let body = "2\r\n[]\r\n0\r\n\r\n";
    for coding in ["transfer-encoding: chunked, chunked", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"] {
        assert_problem(&answer(running.addr, &format!("{head}{coding}\r\n\r\n{body}")).await, 400, "invalid-header");
    }
    let once = format!("{head}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    assert!(answer(running.addr, &once).await.contains("[]"));
    let gzip = format!("{head}connection: close\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n[]");
    let refused = answer(running.addr, &gzip).await;
    assert_problem(&refused, 415, "unsupported-content-encoding");
    assert!(refused.contains("gzip") && refused.contains("accept-encoding: identity"), "{refused}");
}
