use chassis::testkit::eventually;
use serde_json::json;

use crate::world::client::TWO_AND_ONE;
use crate::world::generations::{Kind, Watch, digest, operate, serves};
use crate::world::load::Load;
use crate::world::{SOON, World};

/// How often the topic is repeated, so that reading it takes a while.
const REPEATS: usize = 80;

/// A world with some thousand records on its topic, all of them applied.
async fn with_a_long_topic(world: &World) {
    let load = Load::begin(world, 3);
    load.goes_on(100).await;
    let acknowledged = load.end().await;
    let alice = world.customer("alice");
    alice.cancels(alice.places(TWO_AND_ONE).await).await;
    assert!(acknowledged.orders.len() > 10);
    world.reads_equal_the_log().await;
    world.topic.repeat(REPEATS).await;
}

async fn a_rebuild_that_is_killed_goes_on(kind: Kind) {
    let (world, _database) = World::start_with(kind).await;
    with_a_long_topic(&world).await;
    let (before, watch, operators) =
        (digest(&world.query).await, Watch::begin(world.reads()), world.operators(&world.query));

    let mut rebuild = world.query.beside("killed", &["rebuild"]);
    rebuild.launch();
    assert_eq!(operators.see_building().await, 2);
    rebuild.kill();
    assert_eq!(operators.generations().await, (vec![1], 1));
    assert_eq!(digest(&world.query).await, before);

    let printed = operate(&world.query, &["rebuild"]).await;
    assert!(printed.starts_with("generation 2 is served: "), "{printed}");
    let (read, all) = (records_read(&printed), world.topic.positions().await.len());
    assert!(read < all, "it read {read} of {all} records, as if nothing had been there");
    serves(&world.query, 2, 1).await;
    assert_eq!(operators.generations().await, (vec![1, 2], 2));
    assert_eq!(digest(&world.query).await, before);
    watch.end().await;
    world.end().await;
}

/// As `order-query rebuild` prints it.
fn records_read(printed: &str) -> usize {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "records").unwrap();
    words[at - 1].parse().unwrap()
}

#[tokio::test]
async fn a_rebuild_that_is_killed_goes_on_in_a_file() {
    a_rebuild_that_is_killed_goes_on(Kind::Sqlite).await;
}

#[tokio::test]
async fn a_rebuild_that_is_killed_goes_on_in_a_shared_database() {
    a_rebuild_that_is_killed_goes_on(Kind::Postgres).await;
}

#[tokio::test]
async fn a_service_that_is_killed_while_it_rebuilds_goes_on_by_itself() {
    let (mut world, _database) = World::start_with(Kind::Sqlite).await;
    with_a_long_topic(&world).await;
    let (before, operators) = (digest(&world.query).await, world.operators(&world.query));
    let begun = operators.post("/rebuild", &json!({})).await.is(202);
    assert_eq!(begun.header("location"), "/rebuild");
    assert_eq!(operators.see_building().await, 2);
    let again = operators.post("/rebuild", &json!({})).await.is(409);
    assert_eq!(again.problem(), "rebuild-running");
    world.query.kill();

    world.query.start().await;
    operators.see_live(2).await;
    serves(&world.query, 2, 1).await;
    assert!(world.query.log().contains("is gone on with"));
    assert_eq!(operators.generations().await, (vec![1, 2], 2));
    assert_eq!(digest(&world.query).await, before);
    world.end().await;
}

#[tokio::test]
async fn a_rebuild_that_an_operator_stops_waits_for_the_next_one() {
    let (world, _database) = World::start_with(Kind::Sqlite).await;
    with_a_long_topic(&world).await;
    let operators = world.operators(&world.query);
    operators.post("/rebuild", &json!({ "source": "topic" })).await.is(202);
    assert_eq!(operators.see_building().await, 2);
    operators.delete("/rebuild").await.is(202);
    eventually(SOON, "it stops", || async {
        let told = operators.get("/rebuild").await;
        if told["running"].is_null() && told["failure"].is_string() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    assert_eq!(operators.generations().await, (vec![1], 1));
    operators.post("/rebuild", &json!({ "source": "topic" })).await.is(202);
    serves(&world.query, 2, 1).await;
    world.end().await;
}
