//! Single records: the one at an offset, and the last one of a partition.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::event::is_of_connection;
use super::{Isolation, Message, settings};
use crate::kafka::client::{ASK_TIMEOUT, OffThread, Words, blocking};
use crate::kafka::{Brokers, Error};

const DOING: &str = "reading one record";
/// How far to look back for a last record at first; each time eight times as far.
const LOOK_BACK: i64 = 8;

/// The record at `offset`, `None` when there is none: the anchor check at start (rules R8).
///
/// # Errors
///
/// When the topic is missing or the cluster does not answer.
pub async fn record_at(brokers: &Brokers, topic: &str, partition: i32, offset: i64) -> Result<Option<Message>, Error> {
    ask(brokers, topic, move |reader| {
        let (low, high) = reader.ends(partition)?;
        if !(low..high).contains(&offset) {
            return Ok(None);
        }
        // A record further on means that this offset is a gap: a transaction's end, or a record that was aborted.
        let found = reader.first_from(partition, offset)?;
        Ok(found.filter(|message| message.offset == offset))
    })
    .await
}

/// The last record of `partition` that readers are given, `None` when there is none. It need not stand at the last offset:
/// the ends of transactions and aborted records take offsets too.
///
/// # Errors
///
/// When the topic is missing or the cluster does not answer.
pub async fn last_record(brokers: &Brokers, topic: &str, partition: i32) -> Result<Option<Message>, Error> {
    ask(brokers, topic, move |reader| {
        let (low, high) = reader.ends(partition)?;
        let mut back = LOOK_BACK;
        loop {
            let from = high.saturating_sub(back).max(low);
            if let Some(last) = reader.last_between(partition, from, high)? {
                return Ok(Some(last));
            }
            if from <= low {
                return Ok(None);
            }
            back = back.saturating_mul(LOOK_BACK);
        }
    })
    .await
}

async fn ask(
    brokers: &Brokers,
    topic: &str,
    question: impl FnOnce(&Reader) -> Result<Option<Message>, Error> + Send + 'static,
) -> Result<Option<Message>, Error> {
    let client: BaseConsumer<Words> = settings(brokers, "anchor", 1, Isolation::Committed)
        .create_with_context(Words)
        .map_err(|source| Error::Client { client: "consumer", source })?;
    let deadline = Instant::now() + ASK_TIMEOUT;
    let reader = Reader { client: OffThread::new(client), topic: topic.to_owned(), deadline };
    // The questions inside keep the same deadline; this is for a library that does not.
    blocking(DOING, 2 * ASK_TIMEOUT, move || question(&reader)).await
}

/// A client that reads a few records, on a thread that may block.
struct Reader {
    client: OffThread<BaseConsumer<Words>>,
    topic: String,
    deadline: Instant,
}

impl Reader {
    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn failed(&self, source: KafkaError) -> Error {
        Error::classify(DOING, &self.topic, source)
    }

    fn ends(&self, partition: i32) -> Result<(i64, i64), Error> {
        self.client.fetch_watermarks(&self.topic, partition, self.left()).map_err(|source| self.failed(source))
    }

    fn first_from(&self, partition: i32, offset: i64) -> Result<Option<Message>, Error> {
        self.start(partition, offset)?;
        self.next()
    }

    fn last_between(&self, partition: i32, from: i64, end: i64) -> Result<Option<Message>, Error> {
        if from >= end {
            return Ok(None);
        }
        self.start(partition, from)?;
        let mut last = None;
        while let Some(message) = self.next()?.filter(|message| message.offset < end) {
            last = Some(message);
        }
        Ok(last)
    }

    fn start(&self, partition: i32, offset: i64) -> Result<(), Error> {
        let failed = |source| self.failed(source);
        let mut assignment = TopicPartitionList::with_capacity(1);
        assignment.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(failed)?;
        self.client.assign(&assignment).map_err(failed)
    }

    /// The next record, `None` at the partition's end.
    fn next(&self) -> Result<Option<Message>, Error> {
        loop {
            match self.client.poll(self.left()) {
                Some(Ok(message)) => return Ok(Some(Message::from(&message))),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
                // The client connects again by itself.
                Some(Err(error)) if is_of_connection(&error) && !self.left().is_zero() => {}
                Some(Err(error)) => return Err(self.failed(error)),
                None => return Err(Error::Deadline { doing: DOING, waited_ms: ASK_TIMEOUT.as_millis() }),
            }
        }
    }
}
