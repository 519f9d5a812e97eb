//! How long something has not been applied is known across a rebuild: an alert about it goes on.

use std::time::Duration;

use chassis::kafka::producer::{Outgoing, Producer};
use query::store::answer::Backlog;
use tokio_util::sync::CancellationToken;

use crate::rebuild::rebuild;
use crate::topic::Topic;
use crate::world::{Kind, on_both_stores, whole_life};

on_both_stores!(what_is_not_applied_stays_as_old_as_it_is);

const DEADLINE: Duration = Duration::from_secs(60);

async fn what_is_not_applied_stays_as_old_as_it_is(kind: Kind) {
    const SEEN_MICROS: i64 = 1_000_000;
    const PARKED_MICROS: i64 = 2_000_000;
    let topic = Topic::made().await;
    topic.publish(&whole_life(1)[1..]).await;
    let producer = Producer::connect(&topic.brokers, "test").unwrap();
    let garbage = Outgoing { key: b"k", payload: b"garbage", headers: Vec::new(), partition: Some(0) };
    producer.send_batch(&topic.spec.name, &[garbage], DEADLINE).await.unwrap();
    let mut world = topic.world(kind).await;
    let stepping = async {
        while world.count("select (select count(*) from parked) + (select count(*) from dead_letters)").await < 4 {
            world.projector.step().await.unwrap();
        }
    };
    tokio::time::timeout(DEADLINE, stepping).await.unwrap();
    let (seen, parked) = ("update dead_letters set seen_at = 1000000", "update parked set parked_at = 2000000");
    world.tamper(seen, seen).await;
    world.tamper(parked, parked).await;

    let (rebuild, _told) = rebuild(&world, &topic).await;
    rebuild.run(&CancellationToken::new()).await.unwrap();
    let ages = |backlog: Backlog| (backlog.oldest_letter_micros, backlog.oldest_parked_micros);
    let next = rebuild.generations.open(2).await.unwrap().store;
    assert_eq!(ages(next.backlog().await.unwrap()), (Some(SEEN_MICROS), Some(PARKED_MICROS)));

    let (seen, parked) = ("update dead_letters set seen_at = 3000000", "update parked set parked_at = 1000000");
    world.tamper(seen, seen).await;
    world.tamper(parked, parked).await;
    world.steps_down().await;
    rebuild.roll_back(&CancellationToken::new()).await.unwrap();
    assert_eq!(
        ages(world.store.backlog().await.unwrap()),
        (Some(SEEN_MICROS), Some(SEEN_MICROS)),
        "the older one counts"
    );
}
