//! The topic: creating it, and refusing one that would lose events (rules R24).

mod asker;

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{ASK_TIMEOUT, OffThread, Words, blocking};
use super::{Brokers, Error, TopicSpec};

pub use asker::Asker;

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
    let admin: OffThread<AdminClient<Words>> = asker::admin(brokers)?;
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
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT));
    let create = admin.create_topics([&topic], &options);
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
    let asker = Asker::connect(brokers)?;
    let topic = spec.name.clone();
    blocking("waiting for the topic", WHOLE_TIMEOUT, move || {
        let deadline = Instant::now() + ASK_TIMEOUT;
        loop {
            match asker.partition_count(&topic) {
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
    Asker::connect(brokers)?.verify(spec).await
}

/// The first offset and the offset after the last, for partitions `0..partitions`. See [`Asker::end_offsets`].
///
/// # Errors
///
/// [`Error::TopicMissing`], or when the cluster does not answer.
pub async fn end_offsets(brokers: &Brokers, topic: &str, partitions: i32) -> Result<Vec<(i64, i64)>, Error> {
    Asker::connect(brokers)?.end_offsets(topic, partitions).await
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
