//! The topic: creating it, and refusing one that would lose events (rules R24).

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::client::{ASK_TIMEOUT, OffThread, Words, blocking, config};
use super::{Brokers, Error, TopicSpec};

/// The largest record batch the topic takes; an event has at most a quarter of it (rules R14).
pub const MESSAGE_BYTES_MAX: i64 = 1_048_576;

/// The whole of a multi-step question.
const WHOLE_TIMEOUT: Duration = Duration::from_secs(30);

/// How often a new topic is looked for.
const VISIBLE_INTERVAL: Duration = Duration::from_millis(20);

/// What was learned about a topic that is fit for events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The cluster, where the broker says.
    pub cluster_id: Option<String>,
}

/// A setting of the topic that would lose or reorder events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic} has {key} = {found}, but {required} is required")]
pub struct Drift {
    /// Which topic.
    pub topic: String,
    /// Which setting.
    pub key: &'static str,
    /// Its value.
    pub found: String,
    /// What it must be.
    pub required: String,
}

/// Why a topic is not fit for events.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It does not exist.
    #[error("the topic {topic} does not exist")]
    Missing {
        /// Which topic.
        topic: String,
    },
    /// It exists with a wrong setting.
    #[error("the topic would lose or reorder events")]
    Drift(#[source] Drift),
    /// We could not find out.
    #[error("the topic cannot be verified")]
    Unverified(#[source] Error),
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        match error {
            Error::TopicMissing { topic } => Self::Missing { topic },
            other => Self::Unverified(other),
        }
    }
}

/// Creates the topic unless it exists; an existing one is left as it is, so [`verify`] it afterwards.
///
/// # Errors
///
/// When the cluster refuses or does not answer.
pub async fn ensure(brokers: &Brokers, spec: &TopicSpec) -> Result<(), Error> {
    const DOING: &str = "creating the topic";
    let admin = admin(brokers)?;
    let min_insync = spec.replication.min(2).to_string();
    let message_bytes = MESSAGE_BYTES_MAX.to_string();
    let topic = NewTopic::new(&spec.name, spec.partitions, TopicReplication::Fixed(spec.replication))
        // The topic is the source for every rebuild: nothing in it may expire or be compacted away.
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1")
        .set("retention.bytes", "-1")
        .set("max.message.bytes", &message_bytes)
        // The time an event was published by us, not received by a broker.
        .set("message.timestamp.type", "CreateTime")
        // Stored as the producer compressed it, so the broker need not open the batches.
        .set("compression.type", "producer")
        .set("min.insync.replicas", &min_insync);
    let create = admin.create_topics([&topic], &options());
    let created = tokio::time::timeout(WHOLE_TIMEOUT, create)
        .await
        .map_err(|_elapsed| Error::Deadline { doing: DOING, waited_ms: WHOLE_TIMEOUT.as_millis() })?
        .map_err(|source| Error::classify(DOING, &spec.name, source))?;
    for result in created {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(Error::classify(DOING, &spec.name, KafkaError::AdminOp(code)));
            }
        }
    }
    wait_until_visible(brokers, spec).await
}

/// A created topic reaches the brokers' own metadata a little later; until then they deny that it exists.
async fn wait_until_visible(brokers: &Brokers, spec: &TopicSpec) -> Result<(), Error> {
    let asker = asker(brokers)?;
    let topic = spec.name.clone();
    blocking("waiting for the topic", WHOLE_TIMEOUT, move || {
        let deadline = Instant::now() + ASK_TIMEOUT;
        loop {
            match partition_count(&asker, &topic) {
                Err(Error::TopicMissing { .. }) if Instant::now() < deadline => std::thread::sleep(VISIBLE_INTERVAL),
                other => return other.map(drop),
            }
        }
    })
    .await
}

/// Checks that the topic exists and keeps every event for ever, in the order we rely on.
///
/// # Errors
///
/// [`Unfit::Missing`], [`Unfit::Drift`] naming the first wrong setting, or [`Unfit::Unverified`].
pub async fn verify(brokers: &Brokers, spec: &TopicSpec) -> Result<Verified, Unfit> {
    let asker = asker(brokers)?;
    let topic = spec.name.clone();
    let (partitions, cluster_id) = blocking("reading the topic's metadata", WHOLE_TIMEOUT, move || {
        let partitions = partition_count(&asker, &topic)?;
        Ok((partitions, asker.client().fetch_cluster_id(ASK_TIMEOUT)))
    })
    .await?;
    if partitions != spec.partitions {
        return Err(drift(spec, "partitions", partitions.to_string(), spec.partitions.to_string()));
    }
    verify_settings(brokers, spec).await?;
    Ok(Verified { cluster_id })
}

async fn verify_settings(brokers: &Brokers, spec: &TopicSpec) -> Result<(), Unfit> {
    const DOING: &str = "reading the topic's settings";
    let admin = admin(brokers)?;
    let topic = ResourceSpecifier::Topic(&spec.name);
    let options = options();
    let describe = admin.describe_configs([&topic], &options);
    let mut described = tokio::time::timeout(WHOLE_TIMEOUT, describe)
        .await
        .map_err(|_elapsed| Error::Deadline { doing: DOING, waited_ms: WHOLE_TIMEOUT.as_millis() })?
        .map_err(|source| Error::classify(DOING, &spec.name, source))?;
    let resource = match described.pop() {
        Some(Ok(resource)) => resource,
        Some(Err(code)) => Err(Error::classify(DOING, &spec.name, KafkaError::AdminOp(code)))?,
        None => Err(Error::classify(DOING, &spec.name, KafkaError::Canceled))?,
    };
    let value = |key: &str| {
        let entry = resource.get(key).and_then(|entry| entry.value.clone());
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
    Ok(())
}

fn drift(spec: &TopicSpec, key: &'static str, found: String, required: String) -> Unfit {
    Unfit::Drift(Drift { topic: spec.name.clone(), key, found, required })
}

/// The first offset and the offset after the last, for partitions `0..partitions`.
///
/// # Errors
///
/// [`Error::TopicMissing`], or when the cluster does not answer.
pub async fn end_offsets(brokers: &Brokers, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>, Error> {
    Asker::connect(brokers)?.end_offsets(topic, partitions).await
}

/// Who asks often. A client that is made for each question connects first, which mostly takes 20 ms and now and then most of
/// a second.
#[derive(Clone)]
pub struct Asker(Arc<OffThread<BaseConsumer<Words>>>);

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    /// A client that connects by itself, now and whenever its connection is lost.
    ///
    /// # Errors
    ///
    /// When the library refuses a setting.
    pub fn connect(brokers: &Brokers) -> Result<Self, Error> {
        asker(brokers).map(Self)
    }

    /// As [`end_offsets`].
    ///
    /// # Errors
    ///
    /// As [`end_offsets`].
    pub async fn end_offsets(&self, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>, Error> {
        const DOING: &str = "reading end offsets";
        let (Self(asker), topic) = (self.clone(), topic.to_owned());
        blocking(DOING, WHOLE_TIMEOUT, move || {
            (0..partitions)
                .map(|partition| {
                    asker
                        .fetch_watermarks(&topic, partition, ASK_TIMEOUT)
                        .map_err(|source| Error::classify(DOING, &topic, source))
                })
                .collect()
        })
        .await
    }
}

/// The partition of a key, as the Java client's default partitioner and ours (`murmur2_random`) choose it.
///
/// Zero when `partitions` is not positive.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    // The sign bit is masked off rather than the value negated: that is what the Java client does.
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
    positive.checked_rem(partitions).unwrap_or(0)
}

/// `MurmurHash2`, 32 bits, with the seed that Kafka chose.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // The length is mixed in as 32 bits; keys are far shorter.
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT))
}

fn admin(brokers: &Brokers) -> Result<OffThread<AdminClient<Words>>, Error> {
    config(brokers, "admin")
        .create_with_context(Words)
        .map(OffThread::new)
        .map_err(|source| Error::Client { client: "admin client", source })
}

/// A consumer that only asks; a consumer never creates the topics it asks for.
fn asker(brokers: &Brokers) -> Result<Arc<OffThread<BaseConsumer<Words>>>, Error> {
    config(brokers, "asker")
        .set("allow.auto.create.topics", "false")
        .create_with_context(Words)
        .map(|consumer| Arc::new(OffThread::new(consumer)))
        .map_err(|source| Error::Client { client: "asking client", source })
}

fn partition_count(asker: &BaseConsumer<Words>, topic: &str) -> Result<i32, Error> {
    const DOING: &str = "reading the topic's metadata";
    let classify = |source| Error::classify(DOING, topic, source);
    let metadata = asker.fetch_metadata(Some(topic), ASK_TIMEOUT).map_err(classify)?;
    let missing = || Error::TopicMissing { topic: topic.to_owned() };
    let found = metadata.topics().iter().find(|found| found.name() == topic).ok_or_else(missing)?;
    match found.error() {
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Err(missing()),
        Some(code) => Err(classify(KafkaError::MetadataFetch(code.into()))),
        None => Ok(i32::try_from(found.partitions().len()).unwrap_or(i32::MAX)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_where_the_java_client_sends_them() {
        // The vectors of Kafka's own unit test of its hash.
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
        assert_eq!(partition_of(b"abc", 0), 0);
        assert_eq!(partition_of(b"abc", 6), 479_470_107 % 6);
    }
}
