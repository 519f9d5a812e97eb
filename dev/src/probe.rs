//! Asking a server whether it serves: one real request in its own protocol.
//!
//! An open port is not an answer. Both servers listen for seconds before they can work, so the question is
//! put in the smallest request each of them has, written by hand to keep their clients out of this program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A metadata answer of a broker without topics is a few hundred bytes.
const ANSWER_BYTES_MAX: i32 = 1 << 20;

/// Whether PostgreSQL on this port lets us log in.
pub(crate) async fn postgres_answers(port: u16) -> bool {
    matches!(timeout(ANSWER_WITHIN, postgres_first_byte(port)).await, Ok(Ok(b'R')))
}

/// Whether the broker on this port is a member of its own cluster.
pub(crate) async fn kafka_answers(port: u16) -> bool {
    matches!(timeout(ANSWER_WITHIN, kafka_broker_count(port)).await, Ok(Ok(1..)))
}

/// Sends a start-up message and returns the type of the answer: `R` begins the log-in, `E` is an
/// error such as "the database system is starting up".
async fn postgres_first_byte(port: u16) -> io::Result<u8> {
    let mut stream = TcpStream::connect(loopback(port)).await?;
    let parameters = b"user\0postgres\0database\0postgres\0\0";
    let mut message = Vec::with_capacity(64);
    let length = u32::try_from(8 + parameters.len()).map_err(io::Error::other)?;
    message.extend(length.to_be_bytes());
    message.extend(196_608_u32.to_be_bytes()); // protocol 3.0
    message.extend(parameters);
    stream.write_all(&message).await?;
    stream.read_u8().await
}

/// Sends a Metadata request for no topics and returns how many brokers the answer lists. One that is
/// up but not yet admitted by the controller lists none.
async fn kafka_broker_count(port: u16) -> io::Result<i32> {
    let mut stream = TcpStream::connect(loopback(port)).await?;
    let client = b"order-dev";
    let mut request = Vec::with_capacity(64);
    request.extend(3_i16.to_be_bytes()); // api key: Metadata
    request.extend(1_i16.to_be_bytes()); // version
    request.extend(1_i32.to_be_bytes()); // correlation id
    request.extend(i16::try_from(client.len()).map_err(io::Error::other)?.to_be_bytes());
    request.extend(client);
    request.extend(0_i32.to_be_bytes()); // no topics
    stream.write_i32(i32::try_from(request.len()).map_err(io::Error::other)?).await?;
    stream.write_all(&request).await?;
    let length = stream.read_i32().await?;
    if !(8..=ANSWER_BYTES_MAX).contains(&length) {
        return Err(io::Error::other("not a metadata answer"));
    }
    stream.read_i32().await?; // correlation id
    stream.read_i32().await
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_closes_is_not_ready() {
        let listener = tokio::net::TcpListener::bind(loopback(0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
        });
        assert!(!kafka_answers(port).await);
        assert!(!postgres_answers(port).await);
        server.await.unwrap();
    }
}
