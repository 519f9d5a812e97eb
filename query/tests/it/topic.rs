//! The position is ours, and is only relied on while the topic is the one that it is about (rules R8).

use std::time::Duration;

use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::topic::ensure;
use chassis::kafka::{Brokers, TopicSpec};
use chassis::metrics::Metrics;
use chassis::testkit;
use domain::{OrderEvent, Recorded, schema};
use query::projector::Step;

use crate::world::{History, Kind, World, day, on_both_stores, order, whole_life};

on_both_stores!(
    a_restart_goes_on_where_it_was,
    another_topic_is_read_from_its_beginning_over_the_rows_there_are,
    a_topic_that_is_not_there_yet_is_waited_for,
    a_topic_with_other_partitions_is_not_read,
    a_backlog_is_applied_once_where_a_write_fails_in_the_middle,
);

const DEADLINE: Duration = Duration::from_secs(60);
const HISTORY: &str = "select count(*) from order_history";

pub(crate) struct Topic {
    pub(crate) brokers: Brokers,
    pub(crate) spec: TopicSpec,
}

impl Topic {
    fn named() -> Self {
        let spec = TopicSpec { name: testkit::topic("query"), partitions: 3, replication: 1 };
        Self { brokers: testkit::brokers(), spec }
    }

    pub(crate) async fn made() -> Self {
        let topic = Self::named();
        ensure(&topic.brokers, &topic.spec).await.unwrap();
        topic
    }

    pub(crate) async fn publish(&self, events: &[Recorded<OrderEvent>]) {
        let messages: Vec<_> =
            events.iter().map(|event| (event.order_id.to_string(), schema::encode(event).unwrap())).collect();
        let records: Vec<_> = messages
            .iter()
            .map(|(key, payload)| Outgoing {
                key: key.as_bytes(),
                payload: payload.as_bytes(),
                headers: vec![("ce_actor", "bob".into())],
                partition: None,
            })
            .collect();
        let producer = Producer::connect(&self.brokers, "test").unwrap();
        producer.send_batch(&self.spec.name, &records, DEADLINE).await.unwrap();
    }

    pub(crate) async fn world(&self, kind: Kind) -> World {
        World::reading(kind, self.brokers.clone(), &self.spec.name).await
    }
}

/// Steps until so many events were read, and tells how many were applied and how many were known.
async fn step_through(world: &mut World, events: u64) -> (usize, u64) {
    let (mut applied, mut duplicates) = (0, 0);
    let stepping = async {
        while u64::try_from(applied).unwrap() + duplicates < events {
            if let Step::Applied(summary) = world.projector.step().await.unwrap() {
                applied += summary.applied;
                duplicates += summary.duplicates;
            }
        }
    };
    tokio::time::timeout(DEADLINE, stepping).await.unwrap();
    (applied, duplicates)
}

fn restarts_from_zero() -> u64 {
    let text = Metrics::install().render();
    let line = text.lines().find_map(|line| line.strip_prefix("orders_projection_restarts_from_zero_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

async fn a_restart_goes_on_where_it_was(kind: Kind) {
    let topic = Topic::made().await;
    let events = whole_life(1);
    topic.publish(&events[..2]).await;
    let mut world = topic.world(kind).await;
    step_through(&mut world, 2).await;
    let mut world = world.restarted(topic.brokers.clone(), &topic.spec.name).await;
    topic.publish(&events[2..]).await;
    assert_eq!(step_through(&mut world, 2).await, (2, 0), "nothing is read twice");
    let history = world.get(&format!("/orders/{}/history", order(1))).await.json();
    assert_eq!(history[3]["actor"], "bob");
}

async fn another_topic_is_read_from_its_beginning_over_the_rows_there_are(kind: Kind) {
    // Each of these is how a topic that was deleted and made anew shows itself.
    let another_record = "update checkpoints set digest = order_id from (select order_id from orders limit 1) as o";
    let another_record_long_ago = "update checkpoints set proven_offset = 0, proven_digest = order_id \
        from (select order_id from orders limit 1) as o";
    let shorter = "update checkpoints set next_offset = next_offset + 100";
    let another_cluster = "update checkpoints set cluster_id = 'elsewhere'";
    let another_name = "update checkpoints set topic = 'elsewhere'";
    let topic = Topic::made().await;
    topic.publish(&[whole_life(1), whole_life(2)].concat()).await;
    let mut world = topic.world(kind).await;
    step_through(&mut world, 8).await;
    let before = world.dump().await;
    for change in [another_record, another_record_long_ago, shorter, another_cluster, another_name] {
        world.tamper(change, change).await;
        let restarts = restarts_from_zero();
        world = world.restarted(topic.brokers.clone(), &topic.spec.name).await;
        assert_eq!(step_through(&mut world, 8).await, (0, 8), "{change}");
        assert_eq!(world.dump().await, before, "{change}");
        // Other tests of this process may be counted too.
        assert!(restarts_from_zero() > restarts, "{change}");
    }
}

async fn a_topic_that_is_not_there_yet_is_waited_for(kind: Kind) {
    let topic = Topic::named();
    let mut world = topic.world(kind).await;
    assert_eq!(world.projector.step().await.unwrap(), Step::Waiting);
    let shown = world.get("/projection").await.json();
    assert!(shown["topic"].as_str().unwrap().contains("does not exist"), "{shown}");
    assert_eq!(world.get("/orders").await.text, "[]");
    ensure(&topic.brokers, &topic.spec).await.unwrap();
    topic.publish(&whole_life(1)).await;
    step_through(&mut world, 4).await;
    assert_eq!(world.get("/projection").await.json()["topic"], "reading");
}

async fn a_topic_with_other_partitions_is_not_read(kind: Kind) {
    let mut topic = Topic::named();
    topic.spec.partitions = 2;
    ensure(&topic.brokers, &topic.spec).await.unwrap();
    topic.publish(&whole_life(1)).await;
    let mut world = topic.world(kind).await;
    assert_eq!(world.projector.step().await.unwrap(), Step::Waiting);
    assert_eq!(world.count(HISTORY).await, 0);
    let shown = world.get("/projection").await.json();
    assert!(shown["topic"].as_str().unwrap().contains("partitions = 2, but 3 is required"), "{shown}");
}

async fn a_backlog_is_applied_once_where_a_write_fails_in_the_middle(kind: Kind) {
    const ORDERS: u32 = 4_000;
    let topic = Topic::made().await;
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for n in 0..ORDERS {
        let history = History::new(order(n.into()), day(1)).created("customer-1", "USD", &[("a", 1, "1.00")]);
        let mut events = history.paid("1.00", "USD").events;
        second.extend(events.pop());
        first.extend(events);
    }
    topic.publish(&first).await;
    topic.publish(&second).await;
    let mut world = topic.world(kind).await;
    world
        .tamper(
            "create trigger stop before insert on order_history when new.version = 2 begin select raise(abort, 'as if'); end",
            "alter table order_history add constraint stop check (version < 2)",
        )
        .await;
    let mut applied = 0;
    let failing = async {
        loop {
            match world.projector.step().await {
                Ok(Step::Applied(summary)) => applied += summary.applied,
                Ok(_) => {}
                Err(_as_if) => break,
            }
        }
    };
    tokio::time::timeout(DEADLINE, failing).await.unwrap();
    assert_eq!(world.count(HISTORY).await, i64::try_from(applied).unwrap());
    world.tamper("drop trigger stop", "alter table order_history drop constraint stop").await;
    // What was read ahead of the write that failed is not taken for what comes after it.
    let left = u64::from(2 * ORDERS) - u64::try_from(applied).unwrap();
    assert_eq!(step_through(&mut world, left).await, (usize::try_from(left).unwrap(), 0));
    assert_eq!(world.count("select count(*) from orders where version = 2").await, i64::from(ORDERS));
}
