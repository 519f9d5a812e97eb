//! Kafka: the topic, an in-order producer, and a consumer that owns its position.
//!
//! **Invariant:** this module is the only one that names the client library. Every setting that matters is
//! written out where the client is built, with its reason: several defaults of librdkafka lose data.

pub mod topic;

pub mod producer;

pub mod consumer;

mod client;

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// Bootstrap servers, comma separated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Brokers(pub String);

impl FromStr for Brokers {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Brokers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a topic must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Its partitions; permanent.
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication: i32,
}

/// What can go wrong between us and the brokers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The client cannot be built: a setting it refuses.
    #[error("the {client} cannot be built")]
    Client {
        /// Which client.
        client: &'static str,
        /// What the library says.
        #[source]
        source: KafkaError,
    },
    /// An answer takes too long; it may still arrive, so the outcome is unknown.
    #[error("{doing}: no answer within {waited_ms} ms")]
    Deadline {
        /// What was being done.
        doing: &'static str,
        /// How long we waited.
        waited_ms: u128,
    },
    /// The topic, or one of its partitions, does not exist.
    #[error("the topic {topic} or one of its partitions does not exist")]
    TopicMissing {
        /// Which topic.
        topic: String,
    },
    /// The position is not in the log any more, or not yet: it was truncated or recreated.
    #[error("partition {partition} holds offsets {low} to {high}, not {position}")]
    OffsetOutOfRange {
        /// Which partition.
        partition: i32,
        /// The next offset we wanted.
        position: i64,
        /// The first offset that exists.
        low: i64,
        /// The offset after the last.
        high: i64,
    },
    /// The next records of one partition cannot be read: they are damaged, or in a form that this program does not know.
    #[error("partition {partition} cannot be read from offset {offset} on")]
    Unreadable {
        /// Which partition.
        partition: i32,
        /// Where reading stopped.
        offset: i64,
        /// What the library says.
        #[source]
        source: KafkaError,
    },
    /// A record is larger than the topic takes. Sending it again will not help.
    #[error("record {index} of the batch is too large")]
    TooLarge {
        /// Its place in the batch.
        index: usize,
    },
    /// A record was not acknowledged; whether the broker has it is unknown.
    #[error("record {index} of the batch was not acknowledged")]
    NotAcknowledged {
        /// Its place in the batch.
        index: usize,
        /// What the library says.
        #[source]
        source: KafkaError,
    },
    /// This producer failed before; records of the failed batch may be missing, so nothing may follow them.
    #[error("the producer failed before and must be replaced")]
    ProducerFailed,
    /// The client cannot go on and must be replaced.
    #[error("{doing} failed for good")]
    Fatal {
        /// What was being done.
        doing: &'static str,
        /// What the library says.
        #[source]
        source: KafkaError,
    },
    /// The brokers cannot be reached or are busy; the client goes on trying by itself.
    #[error("{doing} failed for now")]
    Transient {
        /// What was being done.
        doing: &'static str,
        /// What the library says.
        #[source]
        source: KafkaError,
    },
    /// The thread that waited for the library died.
    #[error("{doing}: the blocking thread died")]
    Thread {
        /// What was being done.
        doing: &'static str,
        /// How it died.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl Error {
    /// Sorts an error of the library by what the caller can do about it.
    fn classify(doing: &'static str, topic: &str, source: KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        match source.rdkafka_error_code() {
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
                Self::TopicMissing { topic: topic.to_owned() }
            }
            Some(
                Code::Fatal
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::Authentication
                | Code::SaslAuthenticationFailed,
            ) => Self::Fatal { doing, source },
            _ if matches!(source, KafkaError::MessageConsumptionFatal(_)) => Self::Fatal { doing, source },
            _ => Self::Transient { doing, source },
        }
    }
}

#[cfg(test)]
mod tests;
