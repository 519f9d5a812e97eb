//! A pooler that refuses our session is named.

use chassis::config::Secret;
use chassis::postgres::{connect, connect_options};
use chassis::telemetry::ErrorChain;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// What `PgBouncer` answers to a session that begins with `options`, as the protocol has it.
fn refusal() -> Vec<u8> {
    let fields = b"SFATAL\0VFATAL\0C08P01\0Munsupported startup parameter: options\0\0";
    let length = u32::try_from(fields.len() + 4).unwrap();
    [b"E".as_slice(), &length.to_be_bytes(), fields].concat()
}

#[tokio::test]
async fn a_pooler_that_refuses_our_session_is_named() {
    let pooler = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = pooler.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _peer) = pooler.accept().await.unwrap();
            let mut startup = [0; 4096];
            assert!(stream.read(&mut startup).await.unwrap() > 0);
            stream.write_all(&refusal()).await.unwrap();
        }
    });
    let url = Secret::new(format!("postgres://user@{address}/orders?sslmode=disable"));
    let options = connect_options(&url, "test", None).unwrap();
    let refused = connect(&options).await.unwrap_err();
    let words = ErrorChain(&refused).to_string();
    assert!(words.contains("PgBouncer"), "{words}");
    assert!(words.contains("unsupported startup parameter"), "its own words are kept: {words}");
}
