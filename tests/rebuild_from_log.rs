use chassis::testkit::eventually;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::world::client::TWO_AND_ONE;
use crate::world::generations::{Kind, Watch, digest, operate, serves};
use crate::world::load::Load;
use crate::world::stream::Stream;
use crate::world::topic::Position;
use crate::world::{SOON, World};

async fn a_truncated_topic_is_made_up_for_by_the_log(kind: Kind) {
    let (mut world, _database) = World::start_with(kind).await;
    let alice = world.customer("alice");
    let cancelled = alice.cancels(alice.places(TWO_AND_ONE).await).await;
    let load = Load::begin(&world, 2);
    load.goes_on(60).await;
    world.sees(cancelled).at(2).await;
    // One that has read the whole topic, and goes on.
    let mut whole = world.another_reader();
    whole.start().await;
    world.topic.loses_all_but(1).await;

    let (code, _printed, log) = world.query.beside("refused", &["rebuild"]).runs_to_its_end().await;
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("the beginning of the topic is gone") && log.contains("--from-log"), "{log}");

    let watch = Watch::begin(world.reads());
    let printed = operate(&world.query, &["rebuild", "--from-log"]).await;
    assert!(printed.starts_with("generation 2 is served: "), "{printed}");
    serves(&world.query, 2, 1).await;
    load.goes_on(40).await;
    let mut acknowledged = load.end().await;
    acknowledged.orders.insert(cancelled.id, cancelled.version);
    world.reads_equal_the_log().await;
    watch.end().await;
    world.has_exactly(&acknowledged).await;
    world.is_caught_up(&whole).await;
    assert_eq!(digest(&world.query).await, digest(&whole).await);
    whole.drain().await;

    // After a restart as well: the checkpoints are those of the topic.
    world.query.drain().await;
    world.query.start().await;
    let late = alice.places(TWO_AND_ONE).await;
    world.sees(late).at(1).await;
    assert_eq!(world.query.metric("orders_projection_restarts_from_zero_total").await, Some(0.0));
    // What is left began in the middle of orders: everything is published again, in order.
    world.topic.loses_all_but(0).await;
    let (code, restored, log) = world.chore(&["reconcile"]).await;
    assert_eq!(code, Some(0), "{restored}{log}");
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn a_truncated_topic_is_made_up_for_by_the_log_in_a_file() {
    a_truncated_topic_is_made_up_for_by_the_log(Kind::Sqlite).await;
}

#[tokio::test]
async fn a_truncated_topic_is_made_up_for_by_the_log_in_a_shared_database() {
    a_truncated_topic_is_made_up_for_by_the_log(Kind::Postgres).await;
}

#[tokio::test]
async fn a_log_that_runs_ahead_of_the_topic_is_waited_for() {
    let (mut world, _database) = World::prepare_with(Kind::Sqlite).await;
    world.command.set("RELAY", "off");
    let mut relay = world.relay("relay");
    world.command.start().await;
    relay.start().await;
    world.query.start().await;
    let load = Load::begin(&world, 2);
    load.goes_on(20).await;
    world.reads_equal_the_log().await;
    relay.signal(Signal::SIGSTOP);
    load.goes_on(20).await;

    let operators = world.operators(&world.query);
    operators.post("/rebuild", &json!({ "source": "log" })).await.is(202);
    eventually(SOON, "the log is read and compared", || async {
        let told = operators.get("/rebuild").await;
        if told["phase"] == "verifying" { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    // The log goes on, and the topic does not.
    load.goes_on(200).await;
    assert_eq!(operators.get("/rebuild").await["failure"], Value::Null);
    assert_eq!(operators.generations().await.1, 1);
    relay.signal(Signal::SIGCONT);
    operators.see_live(2).await;
    assert!(!world.query.log().contains("once more"), "it was compared before the topic had told everything");
    serves(&world.query, 2, 1).await;
    let acknowledged = load.end().await;
    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    world.is_clean().await;
    relay.drain().await;
    world.end().await;
}

#[tokio::test]
async fn a_stream_that_began_before_the_log_was_read_is_told_so() {
    let (world, _database) = World::start_with(Kind::Sqlite).await;
    let alice = world.customer("alice");
    let first = alice.places(TWO_AND_ONE).await;
    world.sees(first).at(1).await;
    let mut before = Stream::open(&world.query, &world.http, None).await;
    let second = alice.places(TWO_AND_ONE).await;
    assert_eq!(before.event().await, Position { order_id: second.id, version: 1 });
    let behind = before.last_id.clone();
    alice.pays(second).await;
    assert_eq!(before.event().await, Position { order_id: second.id, version: 2 });

    operate(&world.query, &["rebuild", "--from-log"]).await;
    serves(&world.query, 2, 1).await;
    let third = alice.places(TWO_AND_ONE).await;
    world.sees(third).at(1).await;
    for id in [&behind, &before.last_id] {
        let mut resumed = Stream::open(&world.query, &world.http, Some(id)).await;
        let told = resumed.next(SOON).await.unwrap();
        assert_eq!(told.event.as_deref(), Some("reset"), "{told:?}");
    }
    // So is who was there all the time.
    let told = before.next(SOON).await.unwrap();
    assert_eq!(told.event.as_deref(), Some("reset"), "{told:?}");
    world.end().await;
}
