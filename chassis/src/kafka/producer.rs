//! A producer that keeps the order: one batch at a time, or an error that ends the producer (rules R6).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _, PurgeConfig};
use tokio::time::{Instant, sleep, timeout_at};

use super::client::{OffThread, Words, config};
use super::{Brokers, Error};

/// Records the library queues; a full queue makes [`Producer::send_batch`] wait.
const QUEUE_RECORDS_MAX: u32 = 100_000;

/// Kilobytes the library queues.
const QUEUE_KBYTES_MAX: u32 = 65_536;

/// How long to wait for room when the queue is full of somebody else's records.
const ROOM_INTERVAL: Duration = Duration::from_millis(5);

/// One record to send.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The key; records of one key keep their order.
    pub key: &'a [u8],
    /// The value, byte for byte.
    pub payload: &'a [u8],
    /// Headers, in order.
    pub headers: Vec<(&'static str, String)>,
    /// The partition, or `None` for the one the key belongs to ([`super::topic::partition_of`]).
    pub partition: Option<i32>,
}

/// Where the broker stored a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// An idempotent producer for one task.
pub struct Producer {
    inner: OffThread<FutureProducer<Words>>,
    failed: AtomicBool,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Producer {
    /// Builds a producer; it connects by itself, now and whenever a connection is lost.
    ///
    /// # Errors
    ///
    /// When the library refuses a setting. An unreachable broker is no error here.
    pub fn connect(brokers: &Brokers, client_id: &str) -> Result<Self, Error> {
        let mut config = config(brokers, client_id);
        config
            // Retries inside the library neither repeat nor reorder. Off by default.
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Never give a record up locally: librdkafka would send its successors without it.
            // Our own deadline ends the whole producer instead.
            .set("message.timeout.ms", "0")
            // We hand over whole batches; waiting for more would only add latency.
            .set("linger.ms", "0")
            .set("compression.type", "lz4")
            // The Java client's choice; librdkafka's default is another hash.
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string())
            .set("message.max.bytes", super::topic::MESSAGE_BYTES_MAX.to_string());
        let inner = config.create_with_context(Words).map_err(|source| Error::Client { client: "producer", source })?;
        Ok(Self { inner: OffThread::new(inner), failed: AtomicBool::new(false) })
    }

    /// Sends `records` in order and waits until every one is acknowledged.
    ///
    /// Call it from one task, one batch after the other. After any error, and after this future was
    /// dropped, the producer is finished: its queue is purged so that nothing of the batch is delivered
    /// later behind its successors, and every further call fails. Drop it, build a new one, and start again
    /// from the last saved position; consumers drop the repeats.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], [`Error::NotAcknowledged`], [`Error::TopicMissing`], [`Error::Deadline`] when
    /// `acks_timeout` has passed, [`Error::ProducerFailed`] after an earlier failure.
    pub async fn send_batch(
        &self,
        topic: &str,
        records: &[Outgoing<'_>],
        acks_timeout: Duration,
    ) -> Result<Vec<Delivered>, Error> {
        if self.failed.load(Ordering::Acquire) {
            return Err(Error::ProducerFailed);
        }
        let purge = PurgeUnlessDone { producer: self, done: false };
        let batch = Batch {
            producer: &self.inner,
            topic,
            deadline: Instant::now() + acks_timeout,
            acks_timeout,
            pending: Vec::with_capacity(records.len()),
            delivered: Vec::with_capacity(records.len()),
        };
        let delivered = batch.send(records).await?;
        purge.done();
        Ok(delivered)
    }
}

/// Finishes the producer when a batch ends in any way but success.
struct PurgeUnlessDone<'a> {
    producer: &'a Producer,
    done: bool,
}

impl PurgeUnlessDone<'_> {
    fn done(mut self) {
        self.done = true;
    }
}

impl Drop for PurgeUnlessDone<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.producer.failed.store(true, Ordering::Release);
            self.producer.inner.purge(PurgeConfig::default().queue().inflight());
        }
    }
}

struct Batch<'a> {
    producer: &'a FutureProducer<Words>,
    topic: &'a str,
    deadline: Instant,
    acks_timeout: Duration,
    /// Enqueued and not yet awaited, in order; `delivered.len()` have been awaited before them.
    pending: Vec<DeliveryFuture>,
    delivered: Vec<Delivered>,
}

impl Batch<'_> {
    async fn send(mut self, records: &[Outgoing<'_>]) -> Result<Vec<Delivered>, Error> {
        for (index, record) in records.iter().enumerate() {
            self.enqueue(index, record).await?;
        }
        self.settle().await?;
        Ok(self.delivered)
    }

    /// Enqueues one record; on a full queue waits for room and offers the same record again.
    async fn enqueue(&mut self, index: usize, record: &Outgoing<'_>) -> Result<(), Error> {
        let mut offer = offer(self.topic, record);
        loop {
            // `send_result` and not `send`: that one sleeps on a full queue while later records overtake.
            match self.producer.send_result(offer) {
                Ok(delivery) => {
                    self.pending.push(delivery);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    self.make_room().await?;
                    offer = refused;
                }
                Err((error, _)) => return Err(self.undelivered(index, error)),
            }
        }
    }

    async fn make_room(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return timeout_at(self.deadline, sleep(ROOM_INTERVAL)).await.map_err(|_elapsed| self.too_late());
        }
        self.settle().await
    }

    /// Awaits everything enqueued so far.
    async fn settle(&mut self) -> Result<(), Error> {
        for delivery in std::mem::take(&mut self.pending) {
            let index = self.delivered.len();
            let answer = timeout_at(self.deadline, delivery).await.map_err(|_elapsed| self.too_late())?;
            match answer {
                Ok(Ok(stored)) => {
                    self.delivered.push(Delivered { partition: stored.partition, offset: stored.offset });
                }
                Ok(Err((error, _record))) => return Err(self.undelivered(index, error)),
                Err(_dropped) => return Err(self.undelivered(index, KafkaError::Canceled)),
            }
        }
        Ok(())
    }

    fn too_late(&self) -> Error {
        Error::Deadline { doing: "waiting for acknowledgements", waited_ms: self.acks_timeout.as_millis() }
    }

    fn undelivered(&self, index: usize, source: KafkaError) -> Error {
        match source.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => Error::TooLarge { index },
            _ => match Error::classify("sending", self.topic, source) {
                Error::Transient { source, .. } => Error::NotAcknowledged { index, source },
                other => other,
            },
        }
    }
}

fn offer<'a>(topic: &'a str, record: &Outgoing<'a>) -> FutureRecord<'a, [u8], [u8]> {
    let mut offer = FutureRecord::to(topic).key(record.key).payload(record.payload);
    offer.partition = record.partition;
    if !record.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record
            .headers
            .iter()
            .fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }));
        offer = offer.headers(headers);
    }
    offer
}
