use std::time::{Duration, Instant};

use chassis::testkit::eventually;
use serde_json::json;

use crate::world::World;
use crate::world::client::TWO_AND_ONE;
use crate::world::generations::{Kind, Watch, digest, operate, serves};
use crate::world::load::Load;
use crate::world::process::Service;
use crate::world::reads::Reads;
use crate::world::stream::Stream;
use crate::world::topic::Position;

/// How soon every node answers from what was promoted. It looks every 250 ms; the rest is a busy machine.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test]
async fn nodes_and_streams_follow_a_promotion() {
    let (world, database) = World::start_with(Kind::Postgres).await;
    let mut other = Service::new(world.query_run("order-query-2", &["serve"]), world.http.clone());
    other.set("QUERY_DATABASE_URL", database.as_ref().unwrap().url().expose());
    other.start().await;
    let alice = world.customer("alice");
    let cancelled = alice.cancels(alice.places(TWO_AND_ONE).await).await;
    world.sees(cancelled).at(2).await;
    let watches = [Watch::begin(world.reads()), Watch::begin(Reads::of(&other, &world))];
    let mut here = Stream::open(&world.query, &world.http, None).await;
    let mut there = Stream::open(&other, &world.http, None).await;
    let mut told = [Vec::new(), Vec::new()];

    let load = Load::begin(&world, 2);
    load.goes_on(40).await;
    // Each has taken some when the tables below it change.
    for _ in 0..10 {
        told[0].push(here.event().await);
        told[1].push(there.event().await);
    }
    operate(&world.query, &["rebuild"]).await;
    let promoted = Instant::now();
    serves(&world.query, 2, 1).await;
    serves(&other, 2, 1).await;
    assert!(promoted.elapsed() < FOLLOWED_WITHIN, "{:?}", promoted.elapsed());
    load.goes_on(40).await;
    // The one goes on where it is connected, the other one elsewhere.
    let mut there = Stream::open(&world.query, &world.http, Some(&there.last_id)).await;
    let acknowledged = load.end().await;
    // What is acknowledged is published a moment later.
    world.reads_equal_the_log().await;

    let mut logged: Vec<Position> = world.topic.positions().await;
    logged.retain(|event| event.order_id != cancelled.id);
    while told[0].len() < logged.len() {
        told[0].push(here.event().await);
        told[1].push(there.event().await);
    }
    logged.sort_unstable();
    for told in &mut told {
        told.sort_unstable();
        assert!(*told == logged, "{} events were told, not each once", told.len());
    }
    for watch in watches {
        watch.end().await;
    }
    assert_eq!(world.logged().await.len(), acknowledged.orders.len() + 1);
    assert_eq!(digest(&world.query).await, digest(&other).await);
    other.drain().await;
    world.figures_are_right().await;
    world.end().await;
}

async fn the_way_back_has_what_happened_since(kind: Kind) {
    let (world, _database) = World::start_with(kind).await;
    let operators = world.operators(&world.query);
    let first = operators.post("/rollback", &json!({})).await.is(409);
    assert_eq!(first.problem(), "no-previous-generation");
    let alice = world.customer("alice");
    let cancelled = alice.cancels(alice.places(TWO_AND_ONE).await).await;
    world.sees(cancelled).at(2).await;
    let load = Load::begin(&world, 2);
    let watch = Watch::begin(world.reads());
    operate(&world.query, &["rebuild"]).await;
    serves(&world.query, 2, 1).await;
    load.goes_on(40).await;

    operators.post("/rollback", &json!({})).await.is(202);
    serves(&world.query, 1, 1).await;
    eventually(FOLLOWED_WITHIN, "it says so", || async {
        let told = operators.get("/rebuild").await;
        if told["promoted"] == 1 && told["running"].is_null() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    load.goes_on(40).await;
    let printed = operate(&world.query, &["rollback"]).await;
    assert_eq!(printed, "generation 2 is served again\n");
    serves(&world.query, 2, 2).await;
    assert_eq!(operators.generations().await, (vec![1, 2], 2));
    load.goes_on(20).await;
    load.end().await;
    world.reads_equal_the_log().await;
    watch.end().await;
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn the_way_back_has_what_happened_since_in_a_file() {
    the_way_back_has_what_happened_since(Kind::Sqlite).await;
}

#[tokio::test]
async fn the_way_back_has_what_happened_since_in_a_shared_database() {
    the_way_back_has_what_happened_since(Kind::Postgres).await;
}
