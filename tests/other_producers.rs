use rdkafka::producer::Producer as _;

use crate::world::client::TWO_AND_ONE;
use crate::world::{SOON, World};

/// How somebody else's transaction ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Committed,
    Aborted,
}

/// Somebody else has a transaction on every partition, in front of what the relay publishes, and ends it late.
async fn a_transaction_of_somebody_else_stops_nobody(ending: Ending) {
    let mut world = World::start().await;
    let alice = world.customer("alice");
    let first = alice.places(TWO_AND_ONE).await;
    world.sees(first).at(1).await;
    let open = world.topic.open_transaction("not ours").await;
    let mut orders = Vec::new();
    for _ in 0..8 {
        orders.push(alice.places(TWO_AND_ONE).await);
    }
    // Readers wait for its end. Publishing does not, nor does anybody who compares.
    world.is_published().await;
    world.command.kill();
    world.command.start().await;
    orders.push(alice.places(TWO_AND_ONE).await);
    world.is_published().await;
    let (code, output, failure) = world.chore(&["reconcile"]).await;
    assert!(code == Some(0) && output.contains("restored 0 events"), "{output}{failure}");

    let ended = tokio::task::spawn_blocking(move || match ending {
        Ending::Committed => open.commit_transaction(SOON),
        Ending::Aborted => open.abort_transaction(SOON),
    });
    ended.await.unwrap().unwrap();
    for order in orders {
        world.sees(order).at(1).await;
    }
    // Its end takes an offset on every partition, where there is no record: it may be the last.
    world.is_published().await;
    world.command.drain().await;
    world.command.start().await;
    let last = alice.places(TWO_AND_ONE).await;
    world.sees(last).at(1).await;
    let lost = world.command.metric("orders_relay_topic_losses_total").await;
    assert!(lost.is_none_or(|times| times == 0.0) && !world.command.log().contains("lost events"), "{lost:?}");
    if matches!(ending, Ending::Committed) {
        world.expects_dead_letters(world.topic.partitions());
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_transaction_of_somebody_else_stops_nobody() {
    a_transaction_of_somebody_else_stops_nobody(Ending::Committed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_transaction_of_somebody_else_stops_nobody() {
    a_transaction_of_somebody_else_stops_nobody(Ending::Aborted).await;
}
