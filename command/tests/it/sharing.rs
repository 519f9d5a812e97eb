//! One client does not take what all clients need.

use std::net::SocketAddr;

use axum::http::Request;
use bytes::Bytes;
use chassis::http::Limits;
use h2::SendStream;
use h2::client::SendRequest;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{ORDER, World};

/// More than the 1,000 permits of the world, and than the 2,048 bodies that may be on their way.
const CONNECTIONS: usize = 33;
const STREAMS: usize = 64;

/// What an HTTP/2 client holds open: dropping it would end its streams.
struct Silent {
    _client: SendRequest<Bytes>,
    _bodies: Vec<SendStream<Bytes>>,
}

/// Opens as many orders as one connection takes, and ends none of them.
async fn silent(address: SocketAddr) -> Silent {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let mut bodies = Vec::new();
    for _ in 1..STREAMS {
        client = client.ready().await.unwrap();
        let request = Request::post(format!("http://{address}/orders")).header("content-type", "application/json");
        let (_answer, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::from_static(b"{"), false).unwrap();
        bodies.push(body);
    }
    // The last stream is answered when the server has seen the others.
    client = client.ready().await.unwrap();
    let request = Request::get(format!("http://{address}/openapi.json")).body(()).unwrap();
    let (answer, _no_body) = client.send_request(request, true).unwrap();
    assert!(answer.await.unwrap().status().is_success());
    Silent { _client: client, _bodies: bodies }
}

async fn order(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
    stream.write_all(format!("{head}content-length: {}\r\n\r\n", ORDER.len()).as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream.write_all(ORDER.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_never_end_keep_no_order_out() {
    let world = World::start().await;
    let address = world.listen(Limits::default()).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        held.push(silent(address).await);
    }
    for _ in 0..24 {
        let answer = order(address).await;
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    drop(held);
    world.assert_consistent().await;
}
