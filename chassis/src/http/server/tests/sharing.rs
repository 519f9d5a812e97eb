//! What one peer may take, and how long a connection is kept.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpSocket;

use super::super::super::peer::Peer;
use super::super::super::proxies::network;
use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

async fn connect_from(local: &str, address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(local.parse().unwrap(), 0)).unwrap();
    socket.connect(address).await.unwrap()
}

async fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 12];
    let asked = stream.write_all(GET.as_bytes()).await;
    asked.is_ok() && stream.read_exact(&mut answer).await.is_ok() && &answer == b"HTTP/1.1 200"
}

#[tokio::test]
async fn one_peer_has_its_share_of_connections() {
    let limits = Limits { connections_per_peer_max: 2, ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connect_from("127.0.0.1", running.addr).await;
        assert!(is_answered(&mut stream).await);
        held.push(stream);
    }
    let mut refused = connect_from("127.0.0.1", running.addr).await;
    assert!(!is_answered(&mut refused).await);
    let mut other = connect_from("127.0.0.2", running.addr).await;
    assert!(is_answered(&mut other).await);
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_clients() {
    let router = Router::new().route("/", get(|peer: Peer| async move { format!("{peer:?}") }));
    let trusted_proxies = vec![network("127.0.0.1").unwrap()];
    let limits = Limits { trusted_proxies, connections_per_peer_max: 1, ..Limits::default() };
    let running = start(router, limits).await;
    for (local, peer) in [("127.0.0.1", "198.51.100.7"), ("127.0.0.1", "198.51.100.7"), ("127.0.0.2", "127.0.0.2")] {
        let mut stream = connect_from(local, running.addr).await;
        send(&mut stream, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-forwarded-for: 198.51.100.7\r\n\r\n")
            .await;
        let answer = rest(&mut stream).await;
        assert!(answer.contains(peer), "{local}: {answer}");
    }
}

#[tokio::test]
async fn a_kept_connection_outlives_the_time_for_a_head_but_half_a_head_does_not() {
    let limits = Limits { header_read_timeout_ms: 150, idle_ms: 60_000, ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    assert!(is_answered(&mut stream).await);
    let mut buffer = [0; 1024];
    let body = stream.read(&mut buffer).await.unwrap();
    assert!(buffer[..body].ends_with(b"hello"));
    let quiet = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut buffer)).await;
    assert!(quiet.is_err(), "closed while idle");
    assert!(is_answered(&mut stream).await);
    send(&mut stream, "GET / HT").await;
    tokio::time::timeout(Duration::from_secs(5), rest(&mut stream)).await.expect("half a head holds the connection");
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_the_end() {
    let limits = Limits { idle_ms: 100, ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut stream = TcpStream::connect(running.addr).await.unwrap();
    assert!(is_answered(&mut stream).await);
    tokio::time::timeout(Duration::from_secs(5), rest(&mut stream)).await.expect("still open");
}

#[tokio::test]
async fn a_listener_keeps_little_of_what_nobody_takes() {
    const SEND_BUFFER_BYTES: u32 = 65_536;
    let limits = Limits { send_buffer_bytes: SEND_BUFFER_BYTES, write_stall_ms: 200, ..Limits::default() };
    let listener = bind("127.0.0.1:0".parse().unwrap(), &limits).unwrap();
    let addr = listener.local_addr().unwrap();
    let (taken, ended) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let (count, end) = (Arc::clone(&taken), ended.clone());
    let endless = move || {
        let (count, end) = (Arc::clone(&count), end.clone().drop_guard());
        let pieces = futures_util::stream::repeat_with(move || {
            let _until_here = &end;
            count.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>("x".repeat(16_384))
        });
        async move { Body::from_stream(pieces) }
    };
    let router = Router::new().route("/", get(endless));
    tokio::spawn(async move { serve(listener, router, &limits, CancellationToken::new()).await });
    let mut stream = connect_with_small_buffer(addr).await;
    send(&mut stream, GET).await;
    tokio::time::timeout(Duration::from_secs(5), ended.cancelled()).await.expect("the answer is still held");
    let bytes = taken.load(Ordering::Relaxed) * 16_384;
    assert!(bytes < 1_000_000, "{bytes} bytes were taken for a peer that reads nothing");
}

async fn connect_with_small_buffer(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}
