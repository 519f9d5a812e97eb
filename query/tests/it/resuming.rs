//! What a client claims to have is judged by the partitions that there are, and costs no more than they do.

use query::live::StreamLimits;
use query::live::place::Place;
use tokio_util::sync::CancellationToken;

use crate::live::{Client, limited};
use crate::world::{History, Kind, World, day, on_both_stores, order, whole_life};

on_both_stores!(an_id_of_partitions_that_are_not_there_is_reset, changes_of_a_thousand_partitions_come_in_order,);

async fn an_id_of_partitions_that_are_not_there_is_reset(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    let router = limited(&world.store, StreamLimits::default(), &CancellationToken::new());
    let many: Vec<_> = (0..520).map(|partition| format!("{partition}:-1")).collect();
    for (n, id) in (4..).zip([format!("{};", many.join(",")), "3:-1;".to_owned(), format!("1:1;77:4:{}", order(7))]) {
        let mut client = Client::open(&router, "", Some(&id)).await;
        let told = client.take(1).await.remove(0);
        assert_eq!(told.event, "reset", "{id}");
        // What goes on is ours, and no larger than the topic.
        let (next, _last) = told.id.split_once(';').unwrap();
        assert!(next.split(',').all(|place| ["0:", "1:", "2:"].contains(&&place[..2])), "{}", told.id);
        assert!(!told.text.contains("77"), "{}", told.text);
        world.happen(&whole_life(n)[..1]).await;
        client.take(1).await;
    }
}

/// More partitions than a union of SQLite has terms.
async fn changes_of_a_thousand_partitions_come_in_order(kind: Kind) {
    let mut world = World::new(kind).await;
    let mut records = Vec::new();
    for n in 0..1_000_u32 {
        let event = History::new(order(u128::from(n) + 1), day(1)).created("a", "USD", &[("prod-1", 1, "15")]);
        let mut record = world.record(&event.events[0]);
        record.position.partition = i32::try_from(n * 7 % 1_000).unwrap();
        records.push(record);
    }
    world.apply(records).await;
    let from = (0..1_000).map(|partition| (partition, Place::START)).collect();
    let told = world.store.changes(&from, 10).await.unwrap();
    assert_eq!(told.len(), 1_000);
    assert!(told.is_sorted_by_key(|change| change.seq));
}
