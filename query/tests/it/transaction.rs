//! Rows and checkpoint together, or nothing of either (rules R8).

use crate::world::{Kind, World, on_both_stores, order, whole_life};

on_both_stores!(
    a_batch_that_fails_in_the_middle_leaves_no_trace,
    the_checkpoint_is_the_record_after_the_last_with_its_digest,
);

async fn a_batch_that_fails_in_the_middle_leaves_no_trace(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    let before = world.dump().await;
    let checkpoints = "select cast(coalesce(sum(next_offset), 0) as bigint) from checkpoints";
    let checkpoint = world.count(checkpoints).await;

    // The dead letters are written after all projections and before the checkpoints.
    world
        .tamper(
            "create trigger trap before insert on dead_letters begin select raise(abort, 'disk on fire'); end",
            "create function burn() returns trigger language plpgsql as $$ begin raise 'disk on fire'; end $$; \
             create trigger trap before insert on dead_letters for each row execute function burn()",
        )
        .await;
    let mut batch: Vec<_> = whole_life(2).iter().map(|event| world.record(event)).collect();
    batch.push(world.message(order(3), "garbage".into()));
    let error = world.projector.apply(batch.clone()).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("disk on fire"));
    assert_eq!(world.dump().await, before);
    assert_eq!(world.count(checkpoints).await, checkpoint);

    world.tamper("drop trigger trap", "drop trigger trap on dead_letters").await;
    let summary = world.apply(batch).await;
    assert_eq!((summary.applied, summary.dead_letters), (4, 1));
    assert!(world.count(checkpoints).await > checkpoint);
    assert_eq!(world.count("select count(*) from dead_letters").await, 1);
}

async fn the_checkpoint_is_the_record_after_the_last_with_its_digest(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let records: Vec<_> = events.iter().map(|event| world.record(event)).collect();
    let last = records.last().unwrap().clone();
    world.apply(records).await;
    let checkpoints = world.store.checkpoints().await.unwrap();
    let [checkpoint] = checkpoints.partitions.as_slice() else { panic!("{checkpoints:?}") };
    assert_eq!(checkpoint.next_offset(), last.position.offset + 1);
    assert_eq!(checkpoint.last.digest, last.digest());
}
