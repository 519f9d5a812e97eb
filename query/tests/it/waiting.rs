//! Read-your-writes on every list, and what is merely slow told apart from what has stopped or fails.

use std::time::Duration;

use chassis::http::health::Health;
use chassis::kafka::{Brokers, TopicSpec};
use chassis::metrics::Metrics;
use chassis::testkit::eventually;
use domain::{OrderEvent, Recorded, schema};
use query::api::Api;
use query::freshness::Freshness;
use query::progress::Progress;
use query::projector::Projector;
use query::reader::TopicReader;
use query::service::router;
use query::store::{Opened, open};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::world::{Answer, History, Kind, World, day, get, on_both_stores, order, usd, whole_life};

on_both_stores!(
    every_list_waits_for_an_order_at_a_version,
    what_is_no_order_at_a_version_is_refused,
    the_next_page_does_not_wait_again,
    a_stopped_order_is_told_at_once,
    a_hole_may_heal_and_is_waited_for,
    a_projector_that_fails_is_told_at_once,
);

/// Far less than a wait of ten seconds.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Every list, and the one total that has a page of its own.
const LISTS: [&str; 7] = [
    "/orders?",
    "/orders?customer_id=customer-1&",
    "/customers?",
    "/customers/customer-1?",
    "/products?",
    "/sales/daily?",
    "/cancellations?",
];

async fn every_list_waits_for_an_order_at_a_version(kind: Kind) {
    let mut world = World::new(kind).await;
    for list in LISTS {
        let path = format!("{list}after={}:2", order(1));
        let behind = world.get_with(&path, &[("prefer", "wait=0")]).await;
        behind.assert_problem(503, "read-model-behind");
        assert_eq!((&behind.json()["version"], &behind.headers["retry-after"]), (&json!(0), &"1".parse().unwrap()));
    }
    let waiting: Vec<_> = LISTS
        .into_iter()
        .map(|list| {
            let (router, path) = (world.router.clone(), format!("{list}after={}:2", order(1)));
            tokio::spawn(async move { get(&router, &path, &[("prefer", "wait=10")]).await })
        })
        .collect();
    tokio::task::yield_now().await;
    let history = History::new(order(1), day(1)).created("customer-1", "USD", &[("prod-1", 1, "1.00")]);
    world.happen(&history.cancelled("late").events).await;
    for (waiting, list) in waiting.into_iter().zip(LISTS) {
        let answer = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
        assert_eq!((answer.status.as_u16(), answer.text == "[]"), (200, false), "{list}: {answer:?}");
        let again = world.get(&format!("{list}after={}:1", order(1))).await;
        assert_eq!(again.text, answer.text, "{list}");
    }
}

async fn what_is_no_order_at_a_version_is_refused(kind: Kind) {
    let world = World::new(kind).await;
    let id = order(1);
    for after in ["".to_owned(), id.to_string(), format!("{id}:"), format!("{id}:0"), format!("{id}:-1"), "x:1".into()]
        .into_iter()
        .chain([format!("{id}:4294967296"), format!("{id}:1:1"), format!(":{id}:1"), format!("{id}:1&after={id}:1")])
    {
        for list in LISTS {
            let refused = world.get(&format!("{list}after={after}")).await;
            refused.assert_problem(400, "invalid-query");
            assert_eq!(refused.json()["errors"][0]["pointer"], "after", "{list} {after}");
        }
    }
}

async fn the_next_page_does_not_wait_again(kind: Kind) {
    let mut world = World::new(kind).await;
    for n in 1..=3 {
        let (customer, sku) = (format!("customer-{n}"), format!("prod-{n}"));
        let history =
            History::new(order(n), day(u32::try_from(n).unwrap())).created(&customer, "USD", &[(&sku, 1, "1.00")]);
        world.happen(&history.events).await;
    }
    for list in ["/orders", "/customers", "/products", "/sales/daily"] {
        let first = world.get(&format!("{list}?after={}:1&limit=2", order(3))).await;
        let next = first.headers["link"].to_str().unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
        assert!(next.starts_with(&format!("{list}?limit=2&cursor=")) && !next.contains("after"), "{next}");
        assert_eq!(world.get(&next).await.json().as_array().unwrap().len(), 1, "{list}");
    }
}

/// The event with other content under the same version.
fn another(n: u128) -> Recorded<OrderEvent> {
    let mut events = whole_life(n);
    let mut event = events.remove(1);
    event.occurred_at = day(20);
    event
}

/// Answers long before its wait is over, or fails.
async fn at_once(world: &World, path: &str) -> Answer {
    tokio::time::timeout(AT_ONCE, world.get_with(path, &[("prefer", "wait=10")])).await.unwrap()
}

async fn a_stopped_order_is_told_at_once(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)[..2]).await;
    world.happen(&whole_life(2)[..1]).await;
    let id = order(1);
    // Who waits already is told as well.
    let (router, path) = (world.router.clone(), format!("/orders/{id}?min_version=3"));
    let waiting = tokio::spawn(async move { get(&router, &path, &[("prefer", "wait=10")]).await });
    tokio::task::yield_now().await;
    world.happen(&[another(1)]).await;
    tokio::time::timeout(AT_ONCE, waiting).await.unwrap().unwrap().assert_problem(409, "projection-stopped");
    for path in [format!("/orders/{id}?min_version=3"), format!("/orders/{id}/history?min_version=3")]
        .into_iter()
        .chain([format!("/orders?after={id}:3"), format!("/customers?after={id}:9")])
    {
        let stopped = at_once(&world, &path).await;
        stopped.assert_problem(409, "projection-stopped");
        let told = stopped.json();
        assert_eq!((&told["order_id"], &told["version"]), (&json!(id), &json!(2)));
        assert_eq!(told["stale"], json!({"cause": "fork", "waiting_since_version": 2}));
        assert!(!stopped.headers.contains_key("retry-after"));
    }
    // What it has reached can be read, and others go on.
    assert_eq!(world.get(&format!("/orders?after={id}:2")).await.status, 200);
    assert_eq!(world.get(&format!("/orders?after={}:1", order(2))).await.status, 200);

    // A newer event stops its order from there on, and not before.
    let newer = schema::encode(&whole_life(2)[2]).unwrap().replace("\"schema_version\":1", "\"schema_version\":9");
    let newer = world.message(order(2), newer);
    world.apply(vec![newer]).await;
    let before = world.get_with(&format!("/orders?after={}:2", order(2)), &[("prefer", "wait=0")]).await;
    before.assert_problem(503, "read-model-behind");
    let stopped = at_once(&world, &format!("/orders?after={}:3", order(2))).await;
    stopped.assert_problem(409, "projection-stopped");
    assert_eq!(stopped.json()["stale"], json!({"cause": "newer", "waiting_since_version": 3}));
    world.happen(&whole_life(2)[1..2]).await;
    assert_eq!(world.get(&format!("/orders?after={}:2", order(2))).await.status, 200);
}

async fn a_hole_may_heal_and_is_waited_for(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&[events[0].clone(), events[3].clone()]).await;
    let path = format!("/orders?after={}:4", order(1));
    let behind = world.get_with(&path, &[("prefer", "wait=0")]).await;
    behind.assert_problem(503, "read-model-behind");
    let told = behind.json();
    assert_eq!((&told["version"], &told["missing_version"]), (&json!(1), &json!(2)));
    assert_eq!(told["stale"], json!({"cause": "hole", "waiting_since_version": 4}));
    let router = world.router.clone();
    let waiting = tokio::spawn(async move { get(&router, &path, &[("prefer", "wait=10")]).await });
    tokio::task::yield_now().await;
    world.happen(&events[1..3]).await;
    assert_eq!(waiting.await.unwrap().status, 200);
}

async fn a_projector_that_fails_is_told_at_once(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)[..1]).await;
    world.steps_down().await;
    let Opened { store, writer, keeper } = open(&world.place.url()).await.unwrap();
    if let Some(keeper) = &keeper {
        assert!(keeper.step().await.unwrap());
    }
    // As after half a minute.
    let (freshness, progress) = (Freshness::default(), Progress::tolerating(Duration::ZERO));
    let spec = TopicSpec { name: "orders.events".into(), partitions: 3, replication: 1 };
    let reader = TopicReader::new(Brokers("127.0.0.1:1".into()), spec);
    let projector = Projector::new(writer, reader, usd(), freshness.clone(), progress.clone());
    let api = Api::new(store, freshness, progress.clone(), usd());
    let router = router(api, &Health::new(), &Metrics::install());

    let broken = "alter table checkpoints rename to elsewhere";
    world.tamper(broken, broken).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(projector.run(shutdown.clone()));
    eventually(Duration::from_secs(20), "a projector that fails", || async {
        progress.persistent_failure().ok_or_else(|| "it does not".to_owned())
    })
    .await;
    let path = format!("/orders/{}?min_version=2", order(1));
    let asked = tokio::time::timeout(AT_ONCE, get(&router, &path, &[("prefer", "wait=10")])).await.unwrap();
    asked.assert_problem(503, "projection-failed");
    assert_eq!(
        (&asked.json()["reason"], &asked.headers["retry-after"]),
        (&json!("store-refused"), &"30".parse().unwrap())
    );
    assert!(!asked.text.contains("checkpoints"), "{}", asked.text);
    assert_eq!(get(&router, &path.replace("=2", "=1"), &[]).await.status, 200, "what is there is served");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
