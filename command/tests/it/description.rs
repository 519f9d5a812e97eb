//! The OpenAPI document says what the service does: every answer is documented, and everything that is documented is
//! answered by a running service.

use std::net::SocketAddr;

use chassis::http::Limits;
use chassis::http::admission::Admission;
use chassis::postgres;
use chassis::testkit::asking::{Ask, Reply};
use chassis::testkit::contract::Contract;
use chassis::testkit::limits::probe;
use command::api::{self, Api, Log};
use command::catalog::Catalog;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool};
use uuid::Uuid;

use crate::world::{ORDER, World, listen, usd};

/// What failures of the database are answered with; `executor`, `lost_answers` and `catalog` provoke those. The limits of
/// items, SKUs and bodies keep every event far below what may be published.
const OF_THE_DATABASE: [&str; 6] =
    ["internal", "unstorable-value", "command-timeout", "idempotency-key-busy", "outcome-unknown", "event-too-large"];

/// A command on an order: its method and what follows the order's path, a body, and the commands that lead to it.
struct Command {
    method: &'static str,
    name: &'static str,
    body: &'static str,
    after: &'static [&'static str],
}

const CHANGE: Command =
    Command { method: "PUT", name: "items", body: r#"{"items":[{"sku":"prod-2","quantity":3}]}"#, after: &[] };
const PAY: Command = Command { method: "POST", name: "pay", body: r#"{"payment_reference":"p-1"}"#, after: &[] };
const SHIP: Command = Command { method: "POST", name: "ship", body: "{}", after: &["pay"] };
const DELIVER: Command = Command { method: "POST", name: "deliver", body: "{}", after: &["pay", "ship"] };
const CANCEL: Command = Command { method: "POST", name: "cancel", body: r#"{"reason":"too late"}"#, after: &[] };

/// A service that listens, and its document.
struct Served<'c> {
    at: SocketAddr,
    contract: &'c Contract,
}

impl Served<'_> {
    async fn send(&self, ask: Ask) -> Reply {
        ask.send(self.at, self.contract).await
    }

    async fn placed(&self) -> String {
        let placed = self.send(Ask::new("POST", "/orders").json(ORDER)).await;
        assert_eq!(placed.status, 201, "{placed:?}");
        placed.json()["order_id"].as_str().unwrap().to_owned()
    }

    /// A new order after these commands.
    async fn after(&self, commands: &[&str]) -> String {
        let order = self.placed().await;
        for name in commands {
            let body = if *name == "cancel" { CANCEL.body } else { "{}" };
            let done = self.send(Ask::new("POST", format!("/orders/{order}/{name}")).json(body)).await;
            assert_eq!(done.status, 200, "{name}: {done:?}");
        }
        order
    }

    async fn product(&self, sku: &str, body: &Value) {
        let put = self.send(Ask::new("PUT", format!("/products/{sku}")).json(body.to_string())).await;
        assert_eq!(put.status, 201, "{put:?}");
    }
}

impl Command {
    fn on(&self, order: &str) -> Ask {
        Ask::new(self.method, format!("/orders/{order}/{}", self.name)).json(self.body)
    }
}

/// A service over this database in which one thing is as a test wants it.
async fn served<'c>(contract: &'c Contract, world: &World, catalog: &PgConnectOptions, permits: usize) -> Served<'c> {
    let pool = || -> PgPool { postgres::pool(catalog.clone(), 2) };
    // No price for what the catalogue does not have.
    let (catalog, prices) = Catalog::new(pool(), pool(), usd(), None);
    tokio::spawn(prices.run());
    let router = chassis::http::finish(api::router(Api {
        executor: world.executor.clone(),
        catalog,
        log: Log::new(pool(), permits),
        commands: Admission::new("commands", permits),
        reads: Admission::new("reads", permits),
        // The world's own service has one.
        reader: None,
    }));
    Served { at: listen(router, Limits::default()).await, contract }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_is_documented_is_answered() {
    let contract = Contract::of(&api::openapi());
    let world = World::start().await;
    let impatient = Limits { body_read_timeout_ms: 300, ..Limits::default() };
    assert!(probe(&contract, world.listen(impatient).await, async || world.placed().await).await > 300);

    let sound = served(&contract, &world, &world.connect, 100).await;
    items(&sound).await;
    states(&sound).await;
    keys(&sound).await;
    catalogue(&sound).await;
    let full = served(&contract, &world, &world.connect, 0).await;
    refused_everywhere(&full, "overloaded").await;
    let nowhere = PgConnectOptions::new().host("127.0.0.1").port(1);
    let unreachable = served(&contract, &world, &nowhere, 100).await;
    refused_everywhere(&unreachable, "not-ready").await;

    let of_the_database = |unseen: &String| OF_THE_DATABASE.iter().any(|code| unseen.ends_with(code));
    let unseen: Vec<_> = contract.unseen().into_iter().filter(|unseen| !of_the_database(unseen)).collect();
    assert_eq!(unseen, [""; 0]);
}

/// Items that make no order.
async fn items(served: &Served<'_>) {
    served.product("dear", &json!({ "unit_price": "90000000000000000" })).await;
    served.product("foreign", &json!({ "unit_price": 1, "currency": "EUR" })).await;
    let many: Vec<_> = (0..201).map(|n| json!({ "sku": format!("s-{n}"), "quantity": 1 })).collect();
    let item = |sku: &str, quantity: u32| json!({ "sku": sku, "quantity": quantity });
    let refused = [
        (json!([]), "empty-order"),
        (json!(many), "too-many-items"),
        (json!([item("prod-1", 1), item("prod-1", 1)]), "duplicate-sku"),
        (json!([item("prod-1", 0)]), "invalid-quantity"),
        (json!([item("unheard-of", 1)]), "unknown-sku"),
        (json!([item("prod-1", 1), item("foreign", 1)]), "mixed-currencies"),
        (json!([item("dear", 1_000)]), "amount-out-of-range"),
    ];
    let order = served.placed().await;
    for (items, code) in refused {
        let create = json!({ "customer_id": "c", "items": items }).to_string();
        served.send(Ask::new("POST", "/orders").json(create)).await.is(422, code);
        let change = json!({ "items": items }).to_string();
        served.send(Ask::new("PUT", format!("/orders/{order}/items")).json(change)).await.is(422, code);
    }
}

/// What the state of an order forbids.
async fn states(served: &Served<'_>) {
    let forbidden: [(&Command, &[&str], &str); 9] = [
        (&CHANGE, &["pay"], "items-frozen"),
        (&PAY, &["pay"], "already-paid"),
        (&SHIP, &[], "not-paid"),
        (&SHIP, &["pay", "ship"], "already-shipped"),
        (&DELIVER, &["pay"], "not-shipped"),
        (&DELIVER, &["pay", "ship", "deliver"], "already-delivered"),
        (&CANCEL, &["pay", "ship"], "not-cancellable"),
        (&CHANGE, &["cancel"], "already-cancelled"),
        (&CANCEL, &["cancel"], "already-cancelled"),
    ];
    for (command, before, code) in forbidden {
        let order = served.after(before).await;
        served.send(command.on(&order)).await.is(409, code);
    }
    for command in [&CHANGE, &PAY, &SHIP, &DELIVER, &CANCEL] {
        let cancelled = served.after(&["cancel"]).await;
        served.send(command.on(&cancelled)).await.is(409, "already-cancelled");
        served.send(command.on(&Uuid::now_v7().to_string())).await.is(404, "unknown-order");
        let order = served.after(command.after).await;
        served.send(command.on(&order).header("If-Match", "\"99\"")).await.is(412, "version-mismatch");
    }
}

/// A key belongs to one request.
async fn keys(served: &Served<'_>) {
    for command in [&CHANGE, &PAY, &SHIP, &DELIVER, &CANCEL] {
        let order = served.after(command.after).await;
        let key = format!("{}-1", command.name);
        let keyed = || command.on(&order).header("Idempotency-Key", &key);
        let first = served.send(keyed()).await;
        let again = served.send(keyed()).await;
        assert_eq!((first.status, again.status), (200, 200), "{again:?}");
        assert_eq!(again.headers["idempotency-replayed"], "true");
        let other = command.on(&Uuid::now_v7().to_string()).header("Idempotency-Key", &key);
        served.send(other).await.is(422, "idempotency-key-reused");
    }
    let create = |order: String| Ask::new("POST", "/orders").json(order).header("Idempotency-Key", "create-1");
    served.send(create(ORDER.to_owned())).await;
    assert_eq!(served.send(create(ORDER.to_owned())).await.headers["idempotency-replayed"], "true");
    served.send(create(ORDER.replace("customer-1", "customer-2"))).await.is(422, "idempotency-key-reused");
}

async fn catalogue(served: &Served<'_>) {
    assert!(served.send(Ask::new("GET", "/products?limit=1")).await.headers.contains_key("link"));
    served.send(Ask::new("GET", "/products/unheard-of")).await.is(404, "unknown-product");
    let too_exact = json!({ "unit_price": "1.001" }).to_string();
    served.send(Ask::new("PUT", "/products/prod-1").json(too_exact)).await.is(422, "invalid-product");
    assert_eq!(served.send(Ask::new("GET", "/products/prod-1")).await.status, 200);
    assert_eq!(served.send(Ask::new("GET", "/internal/events")).await.status, 200);
    served.send(Ask::new("GET", format!("/orders/{}", Uuid::now_v7()))).await.is(404, "read-elsewhere");
}

/// Asks everything that may be refused with this code: it is.
async fn refused_everywhere(served: &Served<'_>, code: &str) {
    let order = Uuid::now_v7().to_string();
    let mut asks = vec![
        Ask::new("POST", "/orders").json(ORDER),
        CHANGE.on(&order),
        Ask::new("GET", "/products"),
        Ask::new("GET", "/products/prod-1"),
        Ask::new("PUT", "/products/prod-1").json(r#"{"unit_price":1}"#),
        Ask::new("GET", "/internal/events"),
    ];
    if code == "overloaded" {
        asks.extend([&PAY, &SHIP, &DELIVER, &CANCEL].map(|command| command.on(&order)));
    }
    for ask in asks {
        served.send(ask).await.is(503, code);
    }
}
