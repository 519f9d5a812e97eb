//! Questions about the topic, over connections that stay open.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use super::{Drift, MESSAGE_BYTES_MAX, Unfit, Verified};
use crate::kafka::client::{ASK_TIMEOUT, OffThread, Words, blocking, config};
use crate::kafka::{Brokers, Error, TopicSpec};

/// What a question may take beyond its own deadline before we stop waiting for the library.
const SLACK: Duration = Duration::from_millis(500);
/// How long to rest while a partition changes its leader.
const LEADER_REST: Duration = Duration::from_millis(50);

/// A client for questions that are asked often. A client that is made for each question connects first, which mostly takes
/// 20 ms and now and then most of a second. Clones share the connections.
#[derive(Clone)]
pub struct Asker {
    inner: Arc<Inner>,
    timeout: Duration,
}

struct Inner {
    brokers: Brokers,
    consumer: OffThread<BaseConsumer<Words>>,
    /// Made with the first question that needs it.
    admin: OnceLock<OffThread<AdminClient<Words>>>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Asker {
    /// A client that connects by itself, now and whenever its connection is lost.
    ///
    /// # Errors
    ///
    /// When the library refuses a setting.
    pub fn connect(brokers: &Brokers) -> Result<Self, Error> {
        // The end of a partition is behind its last record, whether its transaction is committed yet or not.
        Self::build(brokers, "read_uncommitted")
    }

    /// As [`Asker::connect`], for the ends up to which a [`Consumer`](crate::kafka::consumer::Consumer) can read now: an open
    /// transaction ends a partition.
    ///
    /// # Errors
    ///
    /// As [`Asker::connect`].
    pub fn for_readers(brokers: &Brokers) -> Result<Self, Error> {
        Self::build(brokers, "read_committed")
    }

    fn build(brokers: &Brokers, isolation: &str) -> Result<Self, Error> {
        let consumer = config(brokers, "asker")
            // A consumer never creates the topics it asks for.
            .set("allow.auto.create.topics", "false")
            .set("isolation.level", isolation)
            .create_with_context(Words)
            .map_err(|source| Error::Client { client: "asking client", source })?;
        let inner = Inner { brokers: brokers.clone(), consumer: OffThread::new(consumer), admin: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner), timeout: ASK_TIMEOUT })
    }

    /// The same with another deadline for each question.
    #[must_use]
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The first offset and the offset after the last (the high watermark), for partitions `0..partitions`.
    ///
    /// Not every offset before the end has a record: the ends of transactions and aborted records take offsets too. And an
    /// open transaction keeps readers from what follows it. So a reader has caught up when it is told that it is at the end
    /// of the partition, not when it has seen a record at the last offset.
    ///
    /// # Errors
    ///
    /// [`Error::TopicMissing`], or when the cluster does not answer in time.
    pub async fn end_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>, Error> {
        const DOING: &str = "reading end offsets";
        let (asker, topic) = (self.clone(), topic.to_owned());
        blocking(DOING, self.timeout + SLACK, move || {
            let deadline = Instant::now() + asker.timeout;
            let lows = asker.offsets(DOING, &topic, partitions, Offset::Beginning, deadline)?;
            let highs = asker.offsets(DOING, &topic, partitions, Offset::End, deadline)?;
            Ok(lows.into_iter().zip(highs).collect())
        })
        .await
    }

    /// Asks until every partition has a leader that answers, or the deadline has passed: after a leader was replaced, the
    /// library's first question may go to the one before.
    fn offsets(
        &self,
        doing: &'static str,
        topic: &str,
        partitions: i32,
        which: Offset,
        deadline: Instant,
    ) -> Result<Vec<i64>, Error> {
        let left = || deadline.saturating_duration_since(Instant::now());
        loop {
            let asked = self.offsets_once(topic, partitions, which, left());
            match asked {
                Err(error) if is_of_a_leader(&error) && left() > LEADER_REST => {
                    std::thread::sleep(LEADER_REST);
                    // What the library knows of leaders is renewed; whether that succeeds the next question shows.
                    drop(self.inner.consumer.fetch_metadata(Some(topic), left()));
                }
                asked => return asked.map_err(|source| Error::classify(doing, topic, source)),
            }
        }
    }

    /// Asks for all partitions at once: the library takes the two ends for times.
    fn offsets_once(
        &self,
        topic: &str,
        partitions: i32,
        which: Offset,
        within: Duration,
    ) -> Result<Vec<i64>, KafkaError> {
        let mut wanted = TopicPartitionList::new();
        for partition in 0..partitions {
            wanted.add_partition_offset(topic, partition, which)?;
        }
        if partitions <= 0 {
            return Ok(Vec::new());
        }
        let found = self.inner.consumer.offsets_for_times(wanted, within)?;
        let mut offsets = Vec::new();
        for element in found.elements_for_topic(topic) {
            element.error()?;
            let Offset::Offset(offset) = element.offset() else {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset));
            };
            offsets.push(offset);
        }
        Ok(offsets)
    }

    /// Checks the topic as [`super::verify`] does.
    ///
    /// # Errors
    ///
    /// As [`super::verify`].
    pub async fn verify(&self, spec: &TopicSpec) -> Result<Verified, Unfit> {
        let (asker, topic) = (self.clone(), spec.name.clone());
        let (partitions, cluster_id) = blocking("reading the topic's metadata", 2 * self.timeout + SLACK, move || {
            let partitions = asker.partition_count(&topic)?;
            Ok((partitions, asker.inner.consumer.client().fetch_cluster_id(asker.timeout)))
        })
        .await?;
        if partitions != spec.partitions {
            return Err(drift(spec, "partitions", partitions.to_string(), spec.partitions.to_string()));
        }
        let settings = self.settings(spec).await?;
        let value = |key: &str| {
            let entry = settings.get(key).and_then(|entry| entry.value.clone());
            entry.unwrap_or_else(|| "(unset)".to_owned())
        };
        for (key, required) in [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")] {
            if value(key) != required {
                return Err(drift(spec, key, value(key), required.to_owned()));
            }
        }
        let bytes_max = value("max.message.bytes");
        if !bytes_max.parse().is_ok_and(|bytes: i64| bytes >= MESSAGE_BYTES_MAX) {
            let required = format!("at least {MESSAGE_BYTES_MAX}");
            return Err(drift(spec, "max.message.bytes", bytes_max, required));
        }
        Ok(Verified { cluster_id })
    }

    async fn settings(&self, spec: &TopicSpec) -> Result<ConfigResource, Error> {
        const DOING: &str = "reading the topic's settings";
        let topic = ResourceSpecifier::Topic(&spec.name);
        let options = AdminOptions::new().request_timeout(Some(self.timeout)).operation_timeout(Some(self.timeout));
        let describe = self.admin()?.describe_configs([&topic], &options);
        let waited = self.timeout + SLACK;
        let mut described = tokio::time::timeout(waited, describe)
            .await
            .map_err(|_elapsed| Error::Deadline { doing: DOING, waited_ms: waited.as_millis() })?
            .map_err(|source| Error::classify(DOING, &spec.name, source))?;
        match described.pop() {
            Some(Ok(resource)) => Ok(resource),
            Some(Err(code)) => Err(Error::classify(DOING, &spec.name, KafkaError::AdminOp(code))),
            None => Err(Error::classify(DOING, &spec.name, KafkaError::Canceled)),
        }
    }

    fn admin(&self) -> Result<&AdminClient<Words>, Error> {
        if let Some(admin) = self.inner.admin.get() {
            return Ok(admin);
        }
        let made = admin(&self.inner.brokers)?;
        Ok(self.inner.admin.get_or_init(|| made))
    }

    /// The partitions of the topic. It blocks.
    pub(super) fn partition_count(&self, topic: &str) -> Result<i32, Error> {
        const DOING: &str = "reading the topic's metadata";
        let classify = |source| Error::classify(DOING, topic, source);
        let metadata = self.inner.consumer.fetch_metadata(Some(topic), self.timeout).map_err(classify)?;
        let missing = || Error::TopicMissing { topic: topic.to_owned() };
        let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(missing)?;
        match found.error() {
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Err(missing()),
            Some(code) => Err(classify(KafkaError::MetadataFetch(code.into()))),
            None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
        }
    }
}

/// Whether a partition has another leader than the one that was asked, or none at the moment.
fn is_of_a_leader(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        FencedLeaderEpoch, LeaderNotAvailable, NotLeaderForPartition, ReplicaNotAvailable, UnknownLeaderEpoch,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(FencedLeaderEpoch | LeaderNotAvailable | NotLeaderForPartition | ReplicaNotAvailable | UnknownLeaderEpoch)
    )
}

fn drift(spec: &TopicSpec, key: &'static str, found: String, required: String) -> Unfit {
    Unfit::Drift(Drift { topic: spec.name.clone(), key, found, required })
}

pub(super) fn admin(brokers: &Brokers) -> Result<OffThread<AdminClient<Words>>, Error> {
    config(brokers, "admin")
        .create_with_context(Words)
        .map(OffThread::new)
        .map_err(|source| Error::Client { client: "admin client", source })
}
