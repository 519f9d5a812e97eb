use std::time::Duration;

use chassis::testkit::eventually;
use serde_json::Value;

use crate::world::World;

/// How soon a running reader tells that the topic has lost a property that it must have, or has it again.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

async fn readiness(world: &World, status: u16, says: &str) {
    eventually(TOLD_WITHIN, &format!("readiness is {status} and says {says}"), || async {
        let answer = world.reads().get("/health/ready").await.map_err(|error| error.to_string())?;
        let shown: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        let topic = shown["checks"]["topic"].as_str().unwrap_or_default();
        if answer.status == status && topic.contains(says) { Ok(()) } else { Err(answer.body) }
    })
    .await;
}

#[tokio::test]
async fn what_is_refused_at_the_start_is_told_while_the_reader_runs() {
    let mut world = World::prepare().await;
    world.topic.make().await;
    world.query.start().await;
    readiness(&world, 200, "ok").await;

    world.topic.keeps("1000").await;
    readiness(&world, 503, "retention.ms = 1000, but -1 is required").await;
    assert!(world.query.log().contains("retention.ms = 1000"), "{}", world.query.log());
    world.topic.keeps("-1").await;
    readiness(&world, 200, "ok").await;

    world.topic.grows_to(8).await;
    readiness(&world, 503, "partitions = 8, but 3 is required").await;
    eventually(TOLD_WITHIN, "the metrics say so", || async {
        let readable = world.query.metric("orders_projection_topic_readable").await;
        if readable == Some(0.0) { Ok(()) } else { Err(format!("{readable:?}")) }
    })
    .await;
    let said = world.query.log().lines().filter(|line| line.contains("cannot be read as it should")).count();
    assert_eq!(said, 2, "each change is told once: {}", world.query.log());
    world.query.drain().await;
    world.end_unused();
}
