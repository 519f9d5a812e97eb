//! The whole service in process, with no broker to be found: it serves, says that it is not ready, and drains.

use std::time::Duration;

use chassis::config::Secret;
use chassis::http::health::probe;
use chassis::telemetry::ErrorChain;
use chassis::testkit::eventually;
use clap::Parser as _;
use query::config::{Cli, Command};
use query::service::{Service, StartError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;

use crate::world::{Kind, World, on_both_stores, order, whole_life};

on_both_stores!(
    it_serves_what_it_has_while_no_broker_is_there,
    it_describes_itself,
    another_default_currency_is_refused,
    an_open_stream_does_not_hold_up_its_end,
    operators_have_a_listener_of_their_own,
);

/// Far less than a drain may take.
const PROMPT: Duration = Duration::from_secs(3);

async fn ask(address: std::net::SocketAddr, path: &str) -> String {
    request(address, "GET", path).await
}

async fn request(address: std::net::SocketAddr, method: &str, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn service(world: &mut World) -> Service {
    started(world, "USD").await.unwrap()
}

async fn started(world: &mut World, default_currency: &str) -> Result<Service, StartError> {
    world.steps_down().await;
    let url = world.place.url();
    let arguments =
        ["order-query", "serve", "--database-url", url.expose(), "--listen", "127.0.0.1:0", "--kafka-brokers"];
    let rest = ["127.0.0.1:1", "--default-currency", default_currency];
    let cli = Cli::try_parse_from(arguments.into_iter().chain(rest)).unwrap();
    let Command::Serve(config) = cli.command else { panic!("{cli:?}") };
    Service::start(*config).await
}

async fn another_default_currency_is_refused(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    let service = service(&mut world).await;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run(stopped));
    eventually(PROMPT, "the currency is recorded", || async {
        match world.count("select count(*) from generation where default_currency = 'USD'").await {
            1 => Ok(()),
            rows => Err(format!("{rows} rows")),
        }
    })
    .await;
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();

    let refusal = started(&mut world, "EUR").await.unwrap_err();
    let told = ErrorChain(&refusal).to_string();
    assert!(told.contains("DEFAULT_CURRENCY=USD") && told.contains("order-query rebuild"), "{told}");
    started(&mut world, "USD").await.unwrap();
}

async fn an_open_stream_does_not_hold_up_its_end(kind: Kind) {
    let mut world = World::new(kind).await;
    let service = service(&mut world).await;
    let mut stream = tokio::net::TcpStream::connect(service.address()).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run(stopped));
    stream.write_all(b"GET /orders/stream HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut text = String::new();
    while !text.contains("retry: 3000") {
        let mut chunk = [0; 1_024];
        let read = stream.read(&mut chunk).await.unwrap();
        text.push_str(str::from_utf8(&chunk[..read]).unwrap());
        assert_ne!(read, 0, "{text}");
    }
    stop.send(()).unwrap();
    // An ending in good order: cut off, it would be half a chunk.
    tokio::time::timeout(PROMPT, stream.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.ends_with("\r\n0\r\n\r\n"), "{text}");
    // What was cut off at the end of the drain would be an error here.
    running.await.unwrap().unwrap();
}

async fn it_serves_what_it_has_while_no_broker_is_there(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    world.happen(&whole_life(2)[2..3]).await;
    let service = service(&mut world).await;
    let address = service.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run(stopped));
    let answer = ask(address, &format!("/orders/{}", order(1))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(ask(address, "/health/live").await.starts_with("HTTP/1.1 200"));
    let ready = eventually(Duration::from_secs(30), "a refusal that names the topic", || async move {
        let answer = ask(address, "/health/ready").await;
        let told = answer.contains("\"database\":\"ok\"") && answer.contains("\"topic\"");
        if told && answer.starts_with("HTTP/1.1 503") { Ok(answer) } else { Err(answer) }
    })
    .await;
    assert!(!ready.contains("\"topic\":\"ok\""), "{ready}");
    let told: serde_json::Value = serde_json::from_str(ready.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(
        (&told["not_applied"]["parked"], &told["not_applied"]["dead_letters"]),
        (&1.into(), &0.into()),
        "{told}"
    );
    assert!(told["not_applied"]["oldest_parked_s"].is_number(), "{told}");
    probe(address).await.unwrap_err();
    assert!(ask(address, "/metrics").await.contains("orders_projection_restarts_from_zero_total "));

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

async fn operators_have_a_listener_of_their_own(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)[1..]).await;
    let service = service(&mut world).await;
    let (public, admin) = (service.address(), service.admin_address());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(service.run(stopped));
    let retry = format!("/parked/{}/retry", order(1));
    // At once, though no broker answers.
    let done = request(admin, "POST", &retry).await;
    assert!(done.starts_with("HTTP/1.1 200"), "{done}");
    assert!(done.contains("\"kind\":\"retry-order\""), "{done}");
    assert!(ask(admin, "/errors/unknown-intervention").await.starts_with("HTTP/1.1 200"));
    assert!(ask(admin, "/openapi.json").await.contains("/dead-letters/retry"));
    for (listener, name) in [(public, "\"order-query\""), (admin, "\"order-query admin\"")] {
        let index = ask(listener, "/").await;
        assert!(index.starts_with("HTTP/1.1 200") && index.contains(name), "{index}");
        let index: serde_json::Value = serde_json::from_str(index.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        for link in index["links"].as_object().unwrap().values().filter_map(|link| link.as_str()) {
            let answer = ask(listener, link).await;
            assert!(!answer.starts_with("HTTP/1.1 4"), "{name}: {link}: {answer}");
        }
    }
    for path in [retry.as_str(), "/interventions"] {
        assert!(request(public, "POST", path).await.starts_with("HTTP/1.1 404"), "{path} is not for everybody");
    }
    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
}

async fn it_describes_itself(kind: Kind) {
    let world = World::new(kind).await;
    let document = world.get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for path in
        ["/orders", "/orders/{id}", "/orders/{id}/history", "/orders/stream", "/customers", "/sales/daily", "/products"]
    {
        assert!(document["paths"][path]["get"].is_object(), "{path}");
    }
    assert!(world.get("/docs").await.status.is_redirection());
    assert_eq!(world.get("/projection").await.json()["topic"], "not looked at yet");
}

#[tokio::test]
async fn the_file_is_checked() {
    let world = World::new(Kind::Sqlite).await;
    assert_eq!(world.store.quick_check().await.unwrap(), None);
}

#[tokio::test]
async fn what_is_no_store_is_refused() {
    for url in ["sqlite::memory:", "mysql://x", "orders.db", "postgres://h:notaport/x"] {
        assert!(query::store::open(&Secret::new(url)).await.is_err(), "{url}");
    }
}
