//! The position is ours, and is only relied on while the topic is the one that it is about (rules R8).

use std::time::Duration;

use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::topic::ensure;
use chassis::kafka::{Brokers, TopicSpec};
use chassis::metrics::Metrics;
use chassis::testkit;
use domain::{OrderEvent, Recorded, schema};
use query::projector::Step;

use crate::world::{World, order, whole_life};

const DEADLINE: Duration = Duration::from_secs(60);
const HISTORY: &str = "select count(*) from order_history";

struct Topic {
    brokers: Brokers,
    spec: TopicSpec,
}

impl Topic {
    fn named() -> Self {
        let spec = TopicSpec { name: testkit::topic("query"), partitions: 3, replication: 1 };
        Self { brokers: testkit::brokers(), spec }
    }

    async fn made() -> Self {
        let topic = Self::named();
        ensure(&topic.brokers, &topic.spec).await.unwrap();
        topic
    }

    async fn publish(&self, events: &[Recorded<OrderEvent>]) {
        let messages: Vec<_> =
            events.iter().map(|event| (event.order_id.to_string(), schema::encode(event).unwrap())).collect();
        let records: Vec<_> = messages
            .iter()
            .map(|(key, payload)| Outgoing {
                key: key.as_bytes(),
                payload: payload.as_bytes(),
                headers: vec![("ce_actor", "bob".to_owned())],
                partition: None,
            })
            .collect();
        let producer = Producer::connect(&self.brokers, "test").unwrap();
        producer.send_batch(&self.spec.name, &records, DEADLINE).await.unwrap();
    }

    async fn world(&self) -> World {
        World::reading(self.brokers.clone(), &self.spec.name).await
    }
}

/// Steps until `done` says so, and tells how many events were applied and how many were known.
async fn step_until(world: &mut World, done: impl AsyncFn(&World) -> bool) -> (usize, u64) {
    let (mut applied, mut duplicates) = (0, 0);
    let stepping = async {
        while !done(world).await {
            if let Step::Applied(summary) = world.projector.step().await.unwrap() {
                applied += summary.applied;
                duplicates += summary.duplicates;
            }
        }
    };
    tokio::time::timeout(DEADLINE, stepping).await.unwrap();
    (applied, duplicates)
}

async fn step_until_history(world: &mut World, events: i64) -> (usize, u64) {
    step_until(world, async |world| world.count(HISTORY).await >= events).await
}

fn restarts_from_zero() -> u64 {
    let text = Metrics::install().render();
    let line = text.lines().find_map(|line| line.strip_prefix("projection_restarts_from_zero_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_goes_on_where_it_was() {
    let topic = Topic::made().await;
    let events = whole_life(1);
    topic.publish(&events[..2]).await;
    let mut world = topic.world().await;
    step_until_history(&mut world, 2).await;
    let mut world = world.restarted(topic.brokers.clone(), &topic.spec.name).await;
    topic.publish(&events[2..]).await;
    assert_eq!(step_until_history(&mut world, 4).await, (2, 0), "nothing is read twice");
    let history = world.get(&format!("/orders/{}/history", order(1))).await.json();
    assert_eq!(history[3]["actor"], "bob");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_topic_is_read_from_its_beginning_over_the_rows_there_are() {
    // Each of these is how a topic that was deleted and made anew shows itself.
    let another_record = "update checkpoints set digest = zeroblob(16)";
    let another_record_long_ago = "update checkpoints set proven_offset = 0, proven_digest = zeroblob(16)";
    let shorter = "update checkpoints set next_offset = next_offset + 100";
    let another_cluster = "update checkpoints set cluster_id = 'elsewhere'";
    let another_name = "update checkpoints set topic = 'elsewhere'";
    let topic = Topic::made().await;
    topic.publish(&[whole_life(1), whole_life(2)].concat()).await;
    let mut world = topic.world().await;
    step_until_history(&mut world, 8).await;
    let before = world.dump().await;
    for change in [another_record, another_record_long_ago, shorter, another_cluster, another_name] {
        sqlx::query(change).execute(&world.raw).await.unwrap();
        let restarts = restarts_from_zero();
        world = world.restarted(topic.brokers.clone(), &topic.spec.name).await;
        // The checkpoints are forgotten first, so their sum is 8 once everything was read again.
        let seen = step_until(&mut world, async |world| {
            restarts_from_zero() > restarts
                && world.count("select coalesce(sum(next_offset), 0) from checkpoints").await == 8
        });
        assert_eq!(seen.await, (0, 8), "{change}");
        assert_eq!(world.dump().await, before, "{change}");
        assert_eq!(restarts_from_zero(), restarts + 1, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_there_yet_is_waited_for() {
    let topic = Topic::named();
    let mut world = topic.world().await;
    assert_eq!(world.projector.step().await.unwrap(), Step::Waiting);
    let shown = world.get("/projection").await.json();
    assert!(shown["topic"].as_str().unwrap().contains("does not exist"), "{shown}");
    assert_eq!(world.get("/orders").await.text, "[]");
    ensure(&topic.brokers, &topic.spec).await.unwrap();
    topic.publish(&whole_life(1)).await;
    step_until_history(&mut world, 4).await;
    assert_eq!(world.get("/projection").await.json()["topic"], "reading");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_with_other_partitions_is_not_read() {
    let mut topic = Topic::named();
    topic.spec.partitions = 2;
    ensure(&topic.brokers, &topic.spec).await.unwrap();
    topic.publish(&whole_life(1)).await;
    let mut world = topic.world().await;
    assert_eq!(world.projector.step().await.unwrap(), Step::Waiting);
    assert_eq!(world.count(HISTORY).await, 0);
    let shown = world.get("/projection").await.json();
    assert!(shown["topic"].as_str().unwrap().contains("partitions = 2, but 3 is required"), "{shown}");
}
