use std::time::Duration;

use chassis::testkit::eventually;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::world::client::TWO_AND_ONE;
use crate::world::{SOON, World};

const CLIENTS: u64 = 200;

/// Sends an order, or a part of it, and hangs up after a moment of its own; one in five waits for the answer. Returns the
/// order if a whole 201 arrived.
async fn hangs_up(port: u16, body: &str, client: u64) -> Option<Uuid> {
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: orders\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let request = format!("{head}{body}");
    let sent = match client % 5 {
        0 => head.len() / 2,
        1 => head.len(),
        2 => head.len() + body.len() / 2,
        _ => request.len(),
    };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(&request.as_bytes()[..sent]).await.unwrap();
    // From at once to longer than an answer takes.
    let patience = if client % 5 == 4 { SOON } else { Duration::from_micros(client * 500) };
    let mut answer = vec![0; 4096];
    let read = timeout(patience, stream.read(&mut answer)).await.ok()?.ok()?;
    let answer = str::from_utf8(&answer[..read]).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 201").then(|| {
        let order: serde_json::Value = serde_json::from_str(body).unwrap();
        order["order_id"].as_str().unwrap().parse().unwrap()
    })
}

#[tokio::test]
async fn two_hundred_clients_that_hang_up_leave_nothing_behind() {
    let world = World::start().await;
    let alice = world.customer("alice");
    let body = alice.order_of(TWO_AND_ONE).to_string();
    let port = world.command.port();
    let acknowledged: Vec<Uuid> =
        join_all((0..CLIENTS).map(|client| hangs_up(port, &body, client))).await.into_iter().flatten().collect();
    assert!(acknowledged.len() >= 40, "{} clients were answered, and one in five waited", acknowledged.len());

    // Who stays is served, and served for good.
    let mut after = Vec::new();
    for _ in 0..20 {
        let order = alice.places(TWO_AND_ONE).await;
        after.push(alice.pays(order).await);
    }
    let logged = world.logged().await;
    for order in acknowledged.iter().chain(after.iter().map(|order| &order.id)) {
        assert!(logged.contains_key(order), "{order} was acknowledged and is not in the log");
    }
    eventually(SOON, "no connection of the service stays in a transaction", || async {
        let open: Vec<(String, String)> = sqlx::query_as(
            "select state, query from pg_stat_activity
             where datname = current_database() and application_name like 'order-command%' and state <> 'idle'",
        )
        .fetch_all(&world.log())
        .await
        .unwrap();
        if open.is_empty() { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    world.figures_are_right().await;
    world.end().await;
}
