//! The topic as anybody else sees it: all that it holds, messages of foreign writers, its end and its return.

use std::collections::HashMap;
use std::time::Duration;

use chassis::kafka::consumer::{Consumer, Message};
use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::{Brokers, TopicSpec, topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde::Deserialize;
use uuid::Uuid;

const WAIT: Duration = Duration::from_secs(15);

/// A topic of one test.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) brokers: Brokers,
    pub(crate) spec: TopicSpec,
}

/// What tells one event from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub(crate) struct Position {
    pub(crate) order_id: Uuid,
    pub(crate) version: u32,
}

impl Topic {
    /// Everything that it holds now; the messages of one partition in order.
    pub(crate) async fn everything(&self) -> Vec<Message> {
        let ends = topic::end_offsets(&self.brokers, &self.spec.name, self.spec.partitions).await.unwrap();
        let filled: Vec<(i32, i64, i64)> =
            (0..).zip(ends).filter(|(_, (low, high))| low < high).map(|(n, (low, high))| (n, low, high)).collect();
        let starts: Vec<(i32, i64)> = filled.iter().map(|(partition, low, _)| (*partition, *low)).collect();
        if starts.is_empty() {
            return Vec::new();
        }
        let mut consumer = Consumer::assign(&self.brokers, &self.spec.name, &starts, "promises").unwrap();
        let mut messages = Vec::new();
        while filled.iter().any(|(partition, _, high)| consumer.position(*partition) < Some(*high)) {
            messages.extend(consumer.poll_batch(10_000, WAIT).await.unwrap());
        }
        messages
    }

    /// How many offsets it has given.
    pub(crate) async fn records(&self) -> i64 {
        let ends = topic::end_offsets(&self.brokers, &self.spec.name, self.spec.partitions).await.unwrap();
        ends.into_iter().map(|(_low, high)| high).sum()
    }

    /// Whose events its messages are, in their order, repeats among them.
    pub(crate) async fn positions(&self) -> Vec<Position> {
        let all = self.everything().await;
        all.iter().map(|message| serde_json::from_slice(message.payload.as_deref().unwrap()).unwrap()).collect()
    }

    /// The events that it tells for the first time before the version below them, or after a gap.
    pub(crate) async fn out_of_order(&self) -> Vec<Position> {
        let mut last: HashMap<Uuid, u32> = HashMap::new();
        let mut strays = Vec::new();
        for position in self.positions().await {
            let last = last.entry(position.order_id).or_default();
            if position.version > *last + 1 {
                strays.push(position);
            }
            *last = position.version.max(*last);
        }
        strays
    }

    /// Publishes as somebody does who knows nothing but the contract: no key, no headers.
    pub(crate) async fn publish(&self, message: &str) {
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &self.brokers.0).set("acks", "all").create().unwrap();
        // Always one partition: a writer without keys still wants its repeats behind what they repeat.
        let record = FutureRecord::<(), str>::to(&self.spec.name).partition(0).payload(message);
        producer.send(record, WAIT).await.map_err(|(error, _)| error).unwrap();
    }

    /// Begins a transaction of somebody else with one record on every partition, which stays open.
    pub(crate) async fn open_transaction(&self, message: &str) -> FutureProducer {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.brokers.0);
        settings.set("transactional.id", format!("{}-{}", self.spec.name, Uuid::now_v7()));
        let begun = tokio::task::spawn_blocking(move || {
            let producer: FutureProducer = settings.create().unwrap();
            producer.init_transactions(WAIT).unwrap();
            producer.begin_transaction().unwrap();
            producer
        });
        let producer = begun.await.unwrap();
        for partition in 0..self.spec.partitions {
            let record = FutureRecord::<(), str>::to(&self.spec.name).partition(partition).payload(message);
            producer.send(record, WAIT).await.map_err(|(error, _)| error).unwrap();
        }
        producer
    }

    pub(crate) fn partitions(&self) -> usize {
        usize::try_from(self.spec.partitions).unwrap()
    }

    /// Makes it, as an operator or a service at start does.
    pub(crate) async fn make(&self) {
        topic::ensure(&self.brokers, &self.spec).await.unwrap();
    }

    /// Publishes all that it holds once more, so many times: repeats, which readers drop.
    pub(crate) async fn repeat(&self, times: usize) {
        let (all, producer) = (self.everything().await, Producer::connect(&self.brokers, "repeater").unwrap());
        // A test's few names may stay for its lifetime.
        let mut names: HashMap<String, &'static str> = HashMap::new();
        let mut records = Vec::new();
        for message in &all {
            let headers = message.headers.iter().map(|(name, value)| {
                let name = *names.entry(name.clone()).or_insert_with(|| name.clone().leak());
                (name, String::from_utf8_lossy(value))
            });
            let (key, payload) = (message.key.as_deref().unwrap(), message.payload.as_deref().unwrap());
            records.push(Outgoing { key, payload, headers: headers.collect(), partition: Some(message.partition) });
        }
        for _ in 0..times {
            producer.send_batch(&self.spec.name, &records, WAIT).await.unwrap();
        }
    }

    /// Removes the first records of every partition, but for so many last ones.
    pub(crate) async fn loses_all_but(&self, last: i64) {
        let ends = topic::end_offsets(&self.brokers, &self.spec.name, self.spec.partitions).await.unwrap();
        let mut keep = TopicPartitionList::new();
        for (partition, (low, high)) in (0..).zip(ends) {
            if high - low > last {
                keep.add_partition_offset(&self.spec.name, partition, Offset::Offset(high - last)).unwrap();
            }
        }
        assert!(keep.count() > 0, "the topic has nothing to lose");
        let done = self.admin().delete_records(&keep, &options()).await.unwrap();
        assert!(done.elements().iter().all(|element| element.error().is_ok()), "{done:?}");
    }

    /// Deletes it with all that it holds.
    pub(crate) async fn delete(&self) {
        for outcome in self.admin().delete_topics(&[&self.spec.name], &options()).await.unwrap() {
            outcome.unwrap();
        }
    }

    /// Lets it keep its records for so many milliseconds.
    pub(crate) async fn keeps(&self, retention_ms: &str) {
        let change = AlterConfig::new(ResourceSpecifier::Topic(&self.spec.name)).set("retention.ms", retention_ms);
        for outcome in self.admin().alter_configs([&change], &options()).await.unwrap() {
            outcome.unwrap();
        }
    }

    /// Gives it more partitions, which moves keys.
    pub(crate) async fn grows_to(&self, partitions: usize) {
        let more = NewPartitions::new(&self.spec.name, partitions);
        for outcome in self.admin().create_partitions([&more], &options()).await.unwrap() {
            outcome.unwrap();
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers.0).create().unwrap()
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(WAIT)).request_timeout(Some(WAIT))
}
