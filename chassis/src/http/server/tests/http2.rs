//! HTTP/2 clients that keep to the protocol and take nothing: frames by hand, because no library behaves like this.

use super::*;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

struct Client {
    stream: TcpStream,
}

/// What came until the server closed the connection.
#[derive(Debug, Default)]
struct Seen {
    pings: usize,
    goaways: usize,
    /// The first byte of each block of headers: 0x88 is `:status: 200`.
    headers: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr, window_bytes: u32) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut client = Self { stream };
        let mut initial_window_size = vec![0, 4];
        initial_window_size.extend(window_bytes.to_be_bytes());
        client.frame(SETTINGS, 0, 0, &initial_window_size).await;
        client
    }

    async fn frame(&mut self, kind: u8, flags: u8, stream_id: u32, payload: &[u8]) {
        let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream_id.to_be_bytes());
        frame.extend(payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// `GET http://x/`
    async fn get(&mut self, stream_id: u32) {
        const END_STREAM_AND_HEADERS: u8 = 0x5;
        self.frame(HEADERS, END_STREAM_AND_HEADERS, stream_id, &[0x82, 0x86, 0x84, 0x41, 1, b'x']).await;
    }

    async fn next_frame(&mut self) -> io::Result<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await?;
        Ok((head[3], head[4], payload))
    }

    /// Answers pings, and nothing else, until the server closes the connection or has sent so many headers.
    async fn watch(&mut self, answers: usize) -> Seen {
        let mut seen = Seen::default();
        while seen.headers.len() < answers {
            let Ok((kind, flags, payload)) = self.next_frame().await else { break };
            match kind {
                PING if flags & ACK == 0 => {
                    seen.pings += 1;
                    self.frame(PING, ACK, 0, &payload).await;
                }
                GOAWAY => seen.goaways += 1,
                HEADERS => seen.headers.push(payload[0]),
                _ => {}
            }
        }
        seen
    }

    async fn until_closed(&mut self) -> Seen {
        tokio::time::timeout(Duration::from_secs(5), self.watch(usize::MAX)).await.expect("still open")
    }
}

fn large(bytes: usize) -> Router {
    Router::new().route("/", get(move || async move { vec![b'x'; bytes] }))
}

#[tokio::test]
async fn a_window_that_stays_closed_ends_the_connection() {
    let limits = Limits { write_stall_ms: 300, http2_keep_alive_ms: 50, ..Limits::default() };
    let running = start(large(100_000), limits).await;
    let mut client = Client::connect(running.addr, 0).await;
    client.get(1).await;
    client.get(3).await;
    let seen = client.until_closed().await;
    assert!(seen.pings > 1 && seen.goaways >= 1, "{seen:?}");
    assert_eq!(seen.headers, [0x88, 0x88]);
}

#[tokio::test]
async fn a_window_for_a_part_of_the_answer_ends_the_connection_as_well() {
    let limits = Limits { write_stall_ms: 300, http2_keep_alive_ms: 50, ..Limits::default() };
    // The second answer ends in pieces that hyper has taken over and cannot send.
    let running = start(large(20_000), limits).await;
    let mut client = Client::connect(running.addr, 17_000).await;
    client.get(1).await;
    assert!(client.until_closed().await.goaways >= 1);
}

#[tokio::test]
async fn a_connection_without_requests_ends_although_it_answers_pings() {
    let limits = Limits { idle_ms: 300, http2_keep_alive_ms: 50, ..Limits::default() };
    let running = start(hello(), limits).await;
    let mut client = Client::connect(running.addr, 65_535).await;
    client.get(1).await;
    let seen = client.until_closed().await;
    assert!(seen.pings > 1 && seen.goaways >= 1 && seen.headers == [0x88], "{seen:?}");
}

#[tokio::test]
async fn a_slow_handler_and_a_quiet_stream_are_no_idle_connection() {
    let (release, released) = oneshot::channel::<()>();
    let once = Arc::new(tokio::sync::Mutex::new(Some(released)));
    let router = Router::new().route(
        "/",
        get(move || async move {
            let released = once.lock().await.take();
            let Some(released) = released else {
                return Body::from_stream(futures_util::stream::pending::<Result<&'static str, Infallible>>());
            };
            released.await.unwrap();
            Body::from("done")
        }),
    );
    let limits = Limits { idle_ms: 50, write_stall_ms: 50, http2_keep_alive_ms: 40, ..Limits::default() };
    let running = start(router, limits).await;
    let mut client = Client::connect(running.addr, 65_535).await;
    client.get(1).await;
    client.get(3).await;
    assert_eq!(client.watch(1).await.headers, [0x88], "the stream begins");
    let longer = tokio::time::timeout(Duration::from_millis(400), client.watch(1)).await;
    assert!(longer.is_err(), "ended early: {longer:?}");
    release.send(()).unwrap();
    assert_eq!(client.watch(1).await.headers, [0x88]);
}

#[tokio::test]
async fn a_connection_does_not_pile_up_answers() {
    let limits = Limits { connection_answer_bytes_max: 300_000, ..Limits::default() };
    let running = start(large(100_000), limits).await;
    let mut client = Client::connect(running.addr, 0).await;
    for stream in 0..8 {
        client.get(stream * 2 + 1).await;
    }
    let seen = client.watch(8).await;
    let ok = seen.headers.iter().filter(|&&first| first == 0x88).count();
    assert_eq!((ok, seen.headers.len()), (3, 8), "{seen:?}");
    // Another connection is not concerned.
    let mut other = Client::connect(running.addr, 65_535).await;
    other.get(1).await;
    assert_eq!(other.watch(1).await.headers, [0x88]);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_peer_that_does_not_leave() {
    let running = start(hello(), Limits::default()).await;
    let mut client = Client::connect(running.addr, 65_535).await;
    client.get(1).await;
    client.watch(1).await;
    running.shutdown.cancel();
    // Reads nothing, and so answers no ping.
    tokio::time::timeout(Duration::from_secs(5), running.server).await.unwrap().unwrap().unwrap();
}
