use std::cell::Cell;
use std::time::Duration;

use chassis::testkit::{TestDatabase, eventually};
use query::store::postgres;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::world::broker::Broker;
use crate::world::client::{Order, TWO_AND_ONE};
use crate::world::generations::serves;
use crate::world::load::Load;
use crate::world::process::Service;
use crate::world::reads::Reads;
use crate::world::{SOON, World};

/// How soon readers see a new message once the broker answers again.
const SEEN_WITHIN: Duration = Duration::from_secs(2);
/// How soon they say that the broker is away.
const NOTICED_WITHIN: Duration = Duration::from_secs(8);
/// How often a reader says that the brokers are away, and that they are back.
const SAID_PER_OUTAGE: usize = 1;

struct Scene {
    broker: Broker,
    world: World,
    /// Another reader of the same topic, on PostgreSQL.
    other: Service,
    _database: TestDatabase,
}

impl Scene {
    async fn set() -> Self {
        let mut broker = Broker::new();
        broker.launch();
        let mut world = World::prepare_on(broker.brokers()).await;
        let database = TestDatabase::create(&postgres::MIGRATOR).await;
        let mut other = world.another_reader();
        other.set("QUERY_DATABASE_URL", database.url().expose());
        world.command.start().await;
        world.query.start().await;
        other.start().await;
        Self { broker, world, other, _database: database }
    }

    fn readers(&self) -> [(&'static str, &Service); 2] {
        [("SQLite", &self.world.query), ("PostgreSQL", &self.other)]
    }

    /// The broker is killed, and readers say so.
    async fn breaks(&mut self) -> Instant {
        let (killed, before) = (Instant::now(), self.said("cannot be read as it should"));
        self.broker.kill();
        for (at, (name, reader)) in self.readers().into_iter().enumerate() {
            let reads = Reads::of(reader, &self.world);
            eventually(NOTICED_WITHIN, &format!("the reader on {name} notices"), || async {
                let shown = json_of(&reads, "/projection").await;
                let problem = shown["topic"].as_str().unwrap_or_default();
                if problem.contains("do not answer") { Ok(()) } else { Err(shown.to_string()) }
            })
            .await;
            eventually(SOON, "it says so once", || {
                let (said, once) = (self.said("cannot be read as it should")[at], before[at] + SAID_PER_OUTAGE);
                std::future::ready(if said == once { Ok(()) } else { Err(format!("{said} times")) })
            })
            .await;
        }
        killed
    }

    /// The broker comes back, and somebody publishes an order as soon as it answers. How long until readers see it.
    async fn is_back(&mut self) -> [Duration; 2] {
        let before = self.said("can be read again");
        self.broker.come_back();
        let back = self.broker.answers(&self.world.topic.spec).await;
        let order = Order { id: Uuid::now_v7(), version: 1 };
        self.world.topic.publish(&message(order.id)).await;
        let (here, there) = (self.sees(&self.world.query, order, back), self.sees(&self.other, order, back));
        let took = tokio::join!(here, there).into();
        eventually(SOON, "readers say once that it is over", || async {
            let said = self.said("can be read again");
            let once = before.map(|before| before + SAID_PER_OUTAGE);
            if said == once { Ok(()) } else { Err(format!("{said:?}, not {once:?}")) }
        })
        .await;
        took
    }

    async fn sees(&self, reader: &Service, order: Order, since: Instant) -> Duration {
        let reads = Reads::of(reader, &self.world);
        let path = format!("/orders/{}", order.id);
        eventually(SOON, &format!("the reader at {} sees the order", reader.url()), || async {
            let answer = reads.get(&path).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.body) }
        })
        .await;
        since.elapsed()
    }

    /// How often each reader has written such a line.
    fn said(&self, what: &str) -> [usize; 2] {
        self.readers().map(|(_name, reader)| reader.log().lines().filter(|line| line.contains(what)).count())
    }

    async fn ends(mut self) {
        self.other.drain().await;
        self.world.end().await;
    }
}

async fn json_of(reads: &Reads, path: &str) -> Value {
    let answer = reads.get(path).await.unwrap();
    serde_json::from_str(&answer.body).unwrap()
}

fn message(order: Uuid) -> String {
    json!({
        "event_type": "OrderCreated", "order_id": order, "customer_id": "somebody",
        "items": [{ "sku": "prod-1", "quantity": 2 }], "total": 30.0, "created_at": "2026-11-01T12:00:00Z",
    })
    .to_string()
}

fn assert_soon(what: &str, took: [Duration; 2]) {
    eprintln!("{what}: a new message is seen {took:?} after the broker answers (SQLite, PostgreSQL)");
    assert!(took.iter().all(|took| *took <= SEEN_WITHIN), "{what}: {took:?}");
}

/// What a reader says of itself while it is blind.
async fn admits_that_it_is_blind(scene: &Scene) {
    for (name, reader) in scene.readers() {
        let reads = Reads::of(reader, &scene.world);
        eventually(SOON, &format!("the lag is not known on {name}"), || async {
            let shown = json_of(&reads, "/projection").await;
            let unknown = shown["lag"].is_null() && shown["partitions"][0]["lag"].is_null();
            if unknown { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
        eventually(SOON, "the gauges say so too", || async {
            let lag = reader.metric("orders_projection_lag_events").await.unwrap();
            let (seconds, readable) = (
                reader.metric("orders_projection_lag_seconds").await.unwrap(),
                reader.metric("orders_projection_topic_readable").await.unwrap(),
            );
            if lag.is_nan() && seconds.is_nan() && readable == 0.0 {
                Ok(())
            } else {
                Err(format!("{lag} {seconds} {readable}"))
            }
        })
        .await;
        let last = Cell::new(f64::MAX);
        eventually(SOON, "the age of what is known grows", || async {
            let age = reader.metric("orders_projection_read_age_seconds").await.unwrap();
            let before = last.replace(age);
            if age > before { Ok(()) } else { Err(format!("{age} s after {before} s")) }
        })
        .await;
        let ready = reads.get("/health/ready").await.unwrap();
        assert_eq!(ready.status, 200, "what was read stays served: {}", ready.body);
        let ready: Value = serde_json::from_str(&ready.body).unwrap();
        assert_eq!(ready["status"], "degraded", "{ready}");
        assert!(ready["checks"]["freshness"].as_str().unwrap().contains("do not answer"), "{ready}");
        assert!(ready["projection"]["read_age_s"].as_u64().unwrap() >= 1, "{ready}");
        assert!(ready["projection"]["lag"].is_null(), "{ready}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_order_is_seen_two_seconds_after_the_broker_is_back_however_long_it_was_away() {
    const LONG: Duration = Duration::from_secs(15);
    let mut scene = Scene::set().await;
    let order = scene.world.customer("alice").places(TWO_AND_ONE).await;
    scene.world.sees(order).at(1).await;
    for (name, reader) in scene.readers() {
        let log = reader.log();
        assert!(!log.contains("WARN"), "a first start on {name} is nothing to warn of: {log}");
    }

    scene.breaks().await;
    assert_soon("a short outage, idle", scene.is_back().await);

    let killed = scene.breaks().await;
    admits_that_it_is_blind(&scene).await;
    sleep_until(killed + LONG).await;
    assert_soon("15 s, idle", scene.is_back().await);

    // Orders are taken while the broker is away, and a rebuild is under way when it comes back.
    let load = Load::begin(&scene.world, 2);
    load.goes_on(50).await;
    scene.breaks().await;
    load.goes_on(50).await;
    for (_name, reader) in scene.readers() {
        scene.world.operators(reader).post("/rebuild", &json!({ "source": "topic" })).await.is(202);
    }
    assert_soon("under load, with a rebuild", scene.is_back().await);
    let mut acknowledged = load.end().await;
    acknowledged.orders.insert(order.id, order.version);
    for (_name, reader) in scene.readers() {
        serves(reader, 2, 1).await;
    }
    scene.world.has_exactly(&acknowledged).await;
    scene.ends().await;
}
