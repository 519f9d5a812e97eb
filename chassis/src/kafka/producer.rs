//! A producer that keeps the order: one batch at a time, or an error that ends the producer (rules R6).

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::client::{ASK_TIMEOUT, OffThread, Words, blocking, config};
use super::{Brokers, Error};

/// Records the library queues; a full queue makes [`Producer::send_batch`] wait.
const QUEUE_RECORDS_MAX: u32 = 100_000;

/// Kilobytes the library queues.
const QUEUE_KBYTES_MAX: u32 = 65_536;

/// How often to look for room when the queue is full.
const ROOM_INTERVAL: Duration = Duration::from_millis(5);

/// How often the library tells the state of a producer. Only that says when it has its id; writing it takes microseconds.
const STATE_INTERVAL_MS: u32 = 100;

/// How long [`Producer::warm`] waits for the id.
const ID_PATIENCE: Duration = Duration::from_secs(2);

/// One record to send.
#[derive(Debug, Clone)]
pub struct Outgoing<'a> {
    /// The key; records of one key keep their order.
    pub key: &'a [u8],
    /// The value, byte for byte.
    pub payload: &'a [u8],
    /// Headers, in order.
    pub headers: Vec<(&'static str, Cow<'a, str>)>,
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
    inner: Arc<OffThread<ThreadedProducer<Acks>>>,
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
            .set("statistics.interval.ms", STATE_INTERVAL_MS.to_string())
            .set("compression.type", "lz4")
            // A topic that is gone fails what is in flight at once. Given time, the library would deliver it to the next topic
            // of that name, before anything that belongs there first.
            .set("topic.metadata.propagation.max.ms", "0")
            // The Java client's choice; librdkafka's default is another hash.
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.messages", QUEUE_RECORDS_MAX.to_string())
            .set("queue.buffering.max.kbytes", QUEUE_KBYTES_MAX.to_string())
            .set("message.max.bytes", super::topic::MESSAGE_BYTES_MAX.to_string());
        let inner = config
            .create_with_context(Acks::default())
            .map_err(|source| Error::Client { client: "producer", source })?;
        Ok(Self { inner: Arc::new(OffThread::new(inner)), failed: AtomicBool::new(false) })
    }

    /// Connects, learns who leads the topic's partitions, and waits for the id that an idempotent producer needs, so that the
    /// first batch need not. A broker that was just started refuses the first request for an id, and the library rests for
    /// half a second before the next; without the id in time, the first batch waits for it after all.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub async fn warm(&self, topic: &str) -> Result<(), Error> {
        const DOING: &str = "connecting the producer";
        let (producer, topic) = (Arc::clone(&self.inner), topic.to_owned());
        blocking(DOING, ASK_TIMEOUT * 2, move || {
            let known = producer.client().fetch_metadata(Some(&topic), ASK_TIMEOUT);
            known.map(drop).map_err(|source| Error::classify(DOING, &topic, source))
        })
        .await?;
        if timeout(ID_PATIENCE, self.inner.context().has_id()).await.is_err() {
            tracing::debug!("the producer has no id yet");
        }
        Ok(())
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
        let batch = Batch { producer: &self.inner, topic, deadline: Instant::now() + acks_timeout, acks_timeout };
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

/// The acknowledgements of the one batch that is in flight. Each record carries its place in the batch, so nothing is
/// allocated for its answer.
#[derive(Debug, Default)]
struct Acks {
    flight: Mutex<Flight>,
    /// The last answer has come, or the first that is an error.
    settled: Notify,
    /// The broker has given the producer its id.
    identified: AtomicBool,
    /// It just has.
    became_identified: Notify,
}

#[derive(Debug, Default)]
struct Flight {
    delivered: Vec<Delivered>,
    /// How many have no answer yet.
    open: usize,
    /// The first record that was not stored, and why.
    failure: Option<(usize, KafkaError)>,
}

impl Acks {
    /// A batch of so many records begins.
    fn expect(&self, records: usize) {
        let delivered = vec![Delivered { partition: -1, offset: -1 }; records];
        *self.flight() = Flight { delivered, open: records, failure: None };
    }

    /// Waits for every answer, or the first error.
    async fn all(&self) -> Result<Vec<Delivered>, (usize, KafkaError)> {
        loop {
            {
                let mut flight = self.flight();
                if let Some(failure) = flight.failure.take() {
                    return Err(failure);
                }
                if flight.open == 0 {
                    return Ok(std::mem::take(&mut flight.delivered));
                }
            }
            // One answer too many from a batch before costs one more look.
            self.settled.notified().await;
        }
    }

    /// Waits until the producer has its id.
    async fn has_id(&self) {
        while !self.identified.load(Ordering::Acquire) {
            self.became_identified.notified().await;
        }
    }

    fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Acks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Words.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Words.error(error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        if !self.identified.load(Ordering::Acquire) && id_is_assigned(statistics) {
            self.identified.store(true, Ordering::Release);
            self.became_identified.notify_one();
        }
    }
}

/// Whether the library's statistics tell that an idempotent producer has its id.
fn id_is_assigned(statistics: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Statistics {
        eos: Option<Eos>,
    }
    #[derive(serde::Deserialize)]
    struct Eos {
        idemp_state: String,
    }
    let statistics = serde_json::from_slice::<Statistics>(statistics);
    statistics.ok().and_then(|statistics| statistics.eos).is_some_and(|eos| eos.idemp_state == "Assigned")
}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut flight = self.flight();
        match result {
            Ok(stored) => {
                if let Some(delivered) = flight.delivered.get_mut(index) {
                    *delivered = Delivered { partition: stored.partition(), offset: stored.offset() };
                }
            }
            Err((error, _record)) => {
                flight.failure.get_or_insert((index, error.clone()));
            }
        }
        flight.open = flight.open.saturating_sub(1);
        if flight.open == 0 || flight.failure.is_some() {
            self.settled.notify_one();
        }
    }
}

struct Batch<'a> {
    producer: &'a ThreadedProducer<Acks>,
    topic: &'a str,
    deadline: Instant,
    acks_timeout: Duration,
}

impl Batch<'_> {
    async fn send(self, records: &[Outgoing<'_>]) -> Result<Vec<Delivered>, Error> {
        let acks = self.producer.context();
        acks.expect(records.len());
        for (index, record) in records.iter().enumerate() {
            self.enqueue(index, record).await?;
        }
        let answered = timeout_at(self.deadline, acks.all()).await.map_err(|_elapsed| self.too_late())?;
        answered.map_err(|(index, error)| self.undelivered(index, error))
    }

    /// Enqueues one record; on a full queue waits for room and offers the same record again, before any later one.
    async fn enqueue(&self, index: usize, record: &Outgoing<'_>) -> Result<(), Error> {
        let mut offer = offer(self.topic, record, index);
        loop {
            match self.producer.send(offer) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    timeout_at(self.deadline, sleep(ROOM_INTERVAL)).await.map_err(|_elapsed| self.too_late())?;
                    offer = refused;
                }
                Err((error, _)) => return Err(self.undelivered(index, error)),
            }
        }
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

fn offer<'a>(topic: &'a str, record: &Outgoing<'a>, index: usize) -> BaseRecord<'a, [u8], [u8], usize> {
    let mut offer = BaseRecord::with_opaque_to(topic, index).key(record.key).payload(record.payload);
    offer.partition = record.partition;
    if !record.headers.is_empty() {
        let empty = OwnedHeaders::new_with_capacity(record.headers.len());
        let headers = record
            .headers
            .iter()
            .fold(empty, |headers, (key, value)| headers.insert(Header { key, value: Some(&**value) }));
        offer = offer.headers(headers);
    }
    offer
}
