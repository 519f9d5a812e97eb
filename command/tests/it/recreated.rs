//! A topic that was deleted and made anew: what the relay publishes on it, and in which order.

use std::time::Duration;

use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::{TopicSpec, topic};
use chassis::testkit::{self, eventually};
use command::relay::{Relay, Setup};
use sqlx::Executor as _;
use sqlx::types::Uuid;

use crate::relay::{PARTITIONS, another_owner, assert_agrees, drain, pay, place, setup, versions};
use crate::world::World;

/// The same as a deleted topic: another one of the same size and settings, empty.
async fn another_topic(setup: &Setup) -> Setup {
    let empty = TopicSpec { name: testkit::topic("recreated"), ..setup.topic.clone() };
    topic::ensure(&setup.brokers, &empty).await.unwrap();
    Setup { topic: empty, ..another_owner(setup) }
}

async fn next_relay(world: &World, setup: &Setup) -> Relay {
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    Relay::new(setup.clone())
}

#[tokio::test]
async fn what_is_committed_while_the_topic_is_filled_does_not_overtake() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let order = place(&world, 1).await[0];
    drain(&mut Relay::new(setup.clone())).await;
    let recreated = another_topic(&setup).await;
    pay(&world, &[order]).await;

    // The relay has the moment of the log that it restores, and waits to read the orders.
    let mut obstacle = world.pool.begin().await.unwrap();
    obstacle.execute("lock table orders in access exclusive mode").await.unwrap();
    let mut relay = next_relay(&world, &recreated).await;
    let stepping = tokio::spawn(async move {
        drain(&mut relay).await;
        relay
    });
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    eventually(Duration::from_secs(20), "the relay waits for the lock", || async {
        if world.count(waits).await > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
    })
    .await;
    // Meanwhile the third version is committed.
    let third = sqlx::query(
        r#"with third as (
             insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at)
             select order_id, 3, $2, 'OrderShipped', 1,
                    replace(replace(payload, '"version":2', '"version":3'), event_id::text, $2::text), now()
             from events where order_id = $1 and version = 2 returning order_id)
         insert into outbox (order_id, version) select order_id, 3 from third"#,
    );
    third.bind(order.0).bind(Uuid::now_v7()).execute(&world.pool).await.unwrap();
    obstacle.execute("update orders set version = 3").await.unwrap();
    obstacle.commit().await.unwrap();
    let mut relay = stepping.await.unwrap();
    drain(&mut relay).await;
    assert_eq!(versions(&recreated).await[&order.to_string()], [1, 2, 3]);
}

#[tokio::test]
async fn a_topic_that_somebody_else_has_filled_since_is_noticed() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let orders = place(&world, 30).await;
    assert_eq!(drain(&mut Relay::new(setup.clone())).await, 30);
    // It is as long as the one before, and longer.
    let recreated = another_topic(&setup).await;
    let producer = Producer::connect(&setup.brokers, "somebody-else").unwrap();
    for partition in 0..PARTITIONS {
        let record = Outgoing { key: b"k", payload: b"not ours", headers: Vec::new(), partition: Some(partition) };
        let records = vec![record; 40];
        producer.send_batch(&recreated.topic.name, &records, Duration::from_secs(10)).await.unwrap();
    }
    pay(&world, &orders).await;
    drain(&mut next_relay(&world, &recreated).await).await;
    assert_agrees(&recreated).await;
}
