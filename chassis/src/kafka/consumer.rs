//! A consumer that is told where to read and remembers nothing (rules R8).
//!
//! Positions live in the read model's database, in the same transaction as what they stand for. There is no
//! consumer group: no rebalance, no committed offset, no record for a partition that is not ours any more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::{Instant, timeout_at};

use super::client::{ASK_TIMEOUT, OffThread, Words, blocking, config};
use super::{Brokers, Error};

const POLLING: &str = "polling";
const WATERMARKS: &str = "reading watermarks";
const ANCHOR: &str = "reading one record";

/// One record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value, byte for byte; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Its headers, in order; a header without a value has an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was published, in milliseconds since 1970, if known.
    pub timestamp_ms: Option<i64>,
}

impl Message {
    /// The bytes of its key, its value and its headers.
    pub fn size_bytes(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        bytes(&self.key) + bytes(&self.payload) + headers.sum::<usize>()
    }
}

/// A reader of some partitions of one topic.
pub struct Consumer {
    inner: Arc<OffThread<StreamConsumer<Words>>>,
    topic: String,
    /// The next offset of each partition.
    next: BTreeMap<i32, i64>,
    /// The partitions read to their end.
    at_end: BTreeSet<i32>,
    /// An error that came behind messages; it is told on the next poll.
    deferred: Option<KafkaError>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("topic", &self.topic)
            .field("next", &self.next)
            .field("at_end", &self.at_end)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Reads the partitions in `positions`, each from its next offset.
    ///
    /// Must be called on a Tokio runtime. It connects by itself, now and whenever a connection is lost.
    ///
    /// # Errors
    ///
    /// When the library refuses a setting. A missing topic or a position out of range is told by
    /// [`Consumer::poll_batch`].
    pub fn assign(brokers: &Brokers, topic: &str, positions: &[(i32, i64)], client_id: &str) -> Result<Self, Error> {
        let refused = |source| Error::Client { client: "consumer", source };
        let inner: StreamConsumer<Words> = settings(brokers, client_id).create_with_context(Words).map_err(refused)?;
        let inner = OffThread::new(inner);
        let mut assignment = TopicPartitionList::with_capacity(positions.len());
        for &(partition, next) in positions {
            assignment.add_partition_offset(topic, partition, Offset::Offset(next)).map_err(refused)?;
        }
        inner.assign(&assignment).map_err(refused)?;
        Ok(Self {
            inner: Arc::new(inner),
            topic: topic.to_owned(),
            next: positions.iter().copied().collect(),
            at_end: BTreeSet::new(),
            deferred: None,
        })
    }

    /// Waits at most `wait` for a first message, then takes what is there, up to `max`, without waiting.
    ///
    /// Messages of one partition come in order. An empty batch means that `wait` has passed or that every
    /// partition has just been read to its end ([`Consumer::at_end`]). Dropping this future loses nothing.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] and [`Error::TopicMissing`] need a decision, after which a new consumer
    /// is built; [`Error::Transient`] goes away by itself: log it and poll again.
    pub async fn poll_batch(&mut self, max: usize, wait: Duration) -> Result<Vec<Message>, Error> {
        self.poll_sized(max, usize::MAX, wait).await
    }

    /// As [`Consumer::poll_batch`], and takes no more once the messages have `bytes_max` bytes together: the batch is larger
    /// than that by less than its last message.
    ///
    /// # Errors
    ///
    /// As [`Consumer::poll_batch`].
    pub async fn poll_sized(&mut self, max: usize, bytes_max: usize, wait: Duration) -> Result<Vec<Message>, Error> {
        let deadline = Instant::now() + wait;
        let mut batch = Vec::new();
        while batch.is_empty() && self.deferred.is_none() {
            match timeout_at(deadline, self.inner.recv()).await {
                Err(_elapsed) => return Ok(batch),
                Ok(received) => {
                    let event = Event::from(received);
                    let ended = matches!(event, Event::End(_));
                    self.take(event, &mut batch);
                    if ended && self.at_end() {
                        break;
                    }
                }
            }
        }
        // No await from here on while the batch holds messages: dropping the future would drop them.
        let mut bytes = batch.iter().map(Message::size_bytes).sum::<usize>();
        while batch.len() < max && bytes < bytes_max && self.deferred.is_none() {
            let Some(event) = self.inner.recv().now_or_never().map(Event::from) else { break };
            if let Event::Message(message) = &event {
                bytes += message.size_bytes();
            }
            self.take(event, &mut batch);
        }
        if batch.is_empty() && self.deferred.is_some() {
            return Err(self.explain().await);
        }
        Ok(batch)
    }

    /// Whether every partition has been read to where it ended when the broker was last asked.
    pub fn at_end(&self) -> bool {
        self.at_end.len() == self.next.len()
    }

    /// The next offset of `partition`, `None` when it is not assigned.
    pub fn position(&self, partition: i32) -> Option<i64> {
        self.next.get(&partition).copied()
    }

    /// The first offset of `partition` and the offset after its last; the consumer may be read, or dropped, meanwhile.
    ///
    /// # Errors
    ///
    /// When the topic is missing or the cluster does not answer.
    pub fn watermarks(&self, partition: i32) -> impl Future<Output = Result<(i64, i64), Error>> + Send + use<> {
        let (inner, topic) = (Arc::clone(&self.inner), self.topic.clone());
        blocking(WATERMARKS, 2 * ASK_TIMEOUT, move || {
            inner
                .fetch_watermarks(&topic, partition, ASK_TIMEOUT)
                .map_err(|source| Error::classify(WATERMARKS, &topic, source))
        })
    }

    fn take(&mut self, event: Event, batch: &mut Vec<Message>) {
        match event {
            Event::Message(message) => {
                self.at_end.remove(&message.partition);
                self.next.insert(message.partition, message.offset + 1);
                batch.push(message);
            }
            Event::End(partition) => {
                self.at_end.insert(partition);
            }
            Event::Failure(error) => self.deferred = Some(error),
        }
    }

    /// Turns the deferred error into ours. The library does not say which partition is out of range, so
    /// that one is found by asking; until it is found, the error stays deferred.
    async fn explain(&mut self) -> Error {
        let out_of_range = matches!(
            self.deferred.as_ref().and_then(KafkaError::rdkafka_error_code),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if out_of_range {
            for (&partition, &position) in &self.next {
                match self.watermarks(partition).await {
                    Ok((low, high)) if (low..=high).contains(&position) => {}
                    Ok((low, high)) => {
                        return Error::OffsetOutOfRange { partition, position, low, high };
                    }
                    Err(error) => return error,
                }
            }
        }
        let source = self.deferred.take().unwrap_or(KafkaError::NoMessageReceived);
        Error::classify(POLLING, &self.topic, source)
    }
}

/// What the library hands over, without its lifetime.
enum Event {
    Message(Message),
    End(i32),
    Failure(KafkaError),
}

impl From<Result<BorrowedMessage<'_>, KafkaError>> for Event {
    fn from(received: Result<BorrowedMessage<'_>, KafkaError>) -> Self {
        match received {
            Ok(message) => Self::Message(owned(&message)),
            Err(KafkaError::PartitionEOF(partition)) => Self::End(partition),
            Err(error) => Self::Failure(error),
        }
    }
}

fn owned(message: &BorrowedMessage<'_>) -> Message {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
    });
    Message {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    }
}

/// The record at `offset`, `None` when there is none: the anchor check at start (rules R8).
///
/// # Errors
///
/// When the topic is missing or the cluster does not answer.
pub async fn record_at(brokers: &Brokers, topic: &str, partition: i32, offset: i64) -> Result<Option<Message>, Error> {
    let consumer: BaseConsumer<Words> = settings(brokers, "anchor")
        .create_with_context(Words)
        .map_err(|source| Error::Client { client: "consumer", source })?;
    let consumer = OffThread::new(consumer);
    let topic = topic.to_owned();
    blocking(ANCHOR, 3 * ASK_TIMEOUT, move || read_one(&consumer, &topic, partition, offset)).await
}

fn read_one(
    consumer: &BaseConsumer<Words>,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<Option<Message>, Error> {
    let failed = |source| Error::classify(ANCHOR, topic, source);
    let (low, high) = consumer.fetch_watermarks(topic, partition, ASK_TIMEOUT).map_err(failed)?;
    if !(low..high).contains(&offset) {
        return Ok(None);
    }
    let mut assignment = TopicPartitionList::with_capacity(1);
    assignment.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(failed)?;
    consumer.assign(&assignment).map_err(failed)?;
    match consumer.poll(ASK_TIMEOUT) {
        // A record further on means that this offset is a gap (a transaction marker).
        Some(Ok(message)) => Ok(Some(owned(&message)).filter(|message| message.offset == offset)),
        Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
        Some(Err(source)) => Err(failed(source)),
        None => Err(Error::Deadline { doing: ANCHOR, waited_ms: ASK_TIMEOUT.as_millis() }),
    }
}

fn settings(brokers: &Brokers, client_id: &str) -> ClientConfig {
    let mut config = config(brokers, client_id);
    config
        // Required by the library for `assign`; the group is never joined and nothing is committed to it.
        .set("group.id", client_id)
        // On by default; dropping the consumer would then commit what it threw away.
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        // The default goes on at the end of the log: a silent skip. We want to know.
        .set("auto.offset.reset", "error")
        // Off by default.
        .set("check.crcs", "true")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        // Latency: the broker answers with the first byte, and an idle fetch waits this long.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.error.backoff.ms", "50")
        // When the queue below is full, look again soon: the default second would cap a rebuild.
        .set("fetch.queue.backoff.ms", "5")
        // Throughput: this much is fetched ahead of the application, over all partitions.
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "16384")
        // A topic that is recreated or moved is noticed within seconds, not minutes.
        .set("topic.metadata.refresh.interval.ms", "5000");
    config
}
