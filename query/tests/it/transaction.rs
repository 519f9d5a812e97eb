//! Rows and checkpoint together, or nothing of either (rules R8).

use crate::world::{World, order, whole_life};

#[tokio::test]
async fn a_batch_that_fails_in_the_middle_leaves_no_trace() {
    let mut world = World::new().await;
    world.happen(&whole_life(1)).await;
    let before = world.dump().await;
    let checkpoints = "select coalesce(sum(next_offset), 0) from checkpoints";
    let checkpoint = world.count(checkpoints).await;

    // The dead letters are written after all projections and before the checkpoints.
    let trap = "create trigger trap before insert on dead_letters begin select raise(abort, 'disk on fire'); end";
    sqlx::query(trap).execute(&world.raw).await.unwrap();
    let mut batch: Vec<_> = whole_life(2).iter().map(|event| world.record(event)).collect();
    batch.push(world.message(order(3), "garbage".into()));
    let error = world.projector.apply(batch.clone()).await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("disk on fire"));
    assert_eq!(world.dump().await, before);
    assert_eq!(world.count(checkpoints).await, checkpoint);

    sqlx::query("drop trigger trap").execute(&world.raw).await.unwrap();
    let summary = world.apply(batch).await;
    assert_eq!((summary.applied, summary.dead_letters), (4, 1));
    assert!(world.count(checkpoints).await > checkpoint);
    assert_eq!(world.count("select count(*) from dead_letters").await, 1);
}

#[tokio::test]
async fn the_checkpoint_is_the_record_after_the_last_with_its_digest() {
    let mut world = World::new().await;
    let events = whole_life(1);
    let records: Vec<_> = events.iter().map(|event| world.record(event)).collect();
    let last = records.last().unwrap().clone();
    world.apply(records).await;
    let (next_offset, digest): (i64, Vec<u8>) =
        sqlx::query_as("select next_offset, digest from checkpoints").fetch_one(&world.raw).await.unwrap();
    assert_eq!((next_offset, digest.as_slice()), (last.position.offset + 1, last.digest().as_slice()));
}
