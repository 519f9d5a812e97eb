//! A consumer that is told where to read and remembers nothing (rules R8).
//!
//! Positions live in the read model's database, in the same transaction as what they stand for. There is no
//! consumer group: no rebalance, no committed offset, no record for a partition that is not ours any more.

mod event;

mod message;

mod one;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::time::{Instant, timeout_at};

use super::client::{ASK_TIMEOUT, OffThread, Words, blocking, config};
use super::{Brokers, Error};
use event::{Event, Queues};

pub use message::Message;
pub use one::{last_record, record_at};

const POLLING: &str = "polling";
const WATERMARKS: &str = "reading watermarks";
/// How long an error of a partition counts. The library asks again every 50 ms, and no record need come of that.
const ERROR_COUNTS: Duration = Duration::from_secs(1);
/// Records, and kilobytes of them, that are fetched ahead of the application, over all partitions.
const AHEAD_RECORDS: usize = 20_000;
const AHEAD_KBYTES: usize = 16_384;
/// The least of that for one partition.
const AHEAD_RECORDS_MIN: usize = 100;
const AHEAD_KBYTES_MIN: usize = 1_024;

/// A time in which no broker can be reached.
#[derive(Debug, Clone)]
pub struct Outage {
    /// When it began.
    pub since: Instant,
    /// What the library says.
    pub why: KafkaError,
}

/// A partition whose next records cannot be read, while others can.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// When that began.
    pub since: Instant,
    /// The offset at which reading stopped.
    pub offset: i64,
    /// What the library says.
    pub why: KafkaError,
    /// When it said so last.
    last: Instant,
}

/// Which records a consumer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Isolation {
    /// Those of committed transactions, and those without one.
    Committed,
    /// All.
    Uncommitted,
}

/// A reader of some partitions of one topic.
pub struct Consumer {
    inner: Arc<OffThread<Queues>>,
    /// What came before the partitions had queues of their own.
    early: VecDeque<Event>,
    topic: String,
    /// The next offset of each partition.
    next: BTreeMap<i32, i64>,
    /// The partitions read to their end.
    at_end: BTreeSet<i32>,
    /// An end was reached since the positions were last asked for: control records may lie before it.
    passed_end: bool,
    outage: Option<Outage>,
    unreadable: BTreeMap<i32, Unreadable>,
    /// An error that needs a decision, and its partition where that is known. It is told once the messages before it are.
    deferred: Option<(Option<i32>, KafkaError)>,
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
        Self::build(brokers, topic, positions, client_id, Isolation::Committed)
    }

    /// As [`Consumer::assign`], and gives the records of open and aborted transactions too. An open transaction of somebody
    /// else hides nothing from it: use it to compare the topic with what was sent without a transaction.
    ///
    /// # Errors
    ///
    /// As [`Consumer::assign`].
    pub fn scan(brokers: &Brokers, topic: &str, positions: &[(i32, i64)], client_id: &str) -> Result<Self, Error> {
        Self::build(brokers, topic, positions, client_id, Isolation::Uncommitted)
    }

    fn build(
        brokers: &Brokers,
        topic: &str,
        positions: &[(i32, i64)],
        client_id: &str,
        isolation: Isolation,
    ) -> Result<Self, Error> {
        let refused = |source| Error::Client { client: "consumer", source };
        let settings = settings(brokers, client_id, positions.len(), isolation);
        let client: StreamConsumer<Words> = settings.create_with_context(Words).map_err(refused)?;
        let client = Arc::new(client);
        let mut assignment = TopicPartitionList::with_capacity(positions.len());
        for &(partition, next) in positions {
            assignment.add_partition_offset(topic, partition, Offset::Offset(next)).map_err(refused)?;
        }
        client.assign(&assignment).map_err(refused)?;
        let (queues, early) = Queues::split(client, topic, positions.iter().map(|(partition, _next)| *partition));
        Ok(Self {
            inner: Arc::new(OffThread::new(queues)),
            early,
            topic: topic.to_owned(),
            next: positions.iter().copied().collect(),
            at_end: BTreeSet::new(),
            passed_end: false,
            outage: None,
            unreadable: BTreeMap::new(),
            deferred: None,
        })
    }

    /// Waits at most `wait` for a first message, then takes what is there, up to `max`, without waiting.
    ///
    /// Messages of one partition come in order. An empty batch means that `wait` has passed or that every
    /// partition has just been read to its end ([`Consumer::at_end`]). Dropping this future loses nothing.
    ///
    /// News of connections is no error: it is taken out of the queue at once, and reading goes on with the first fetch that
    /// succeeds. See [`Consumer::outage`], and [`Consumer::unreadable`] for partitions that cannot be read.
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
        let inner = Arc::clone(&self.inner);
        while let Some(event) = self.early.pop_front() {
            self.take(event, &mut batch);
        }
        while batch.is_empty() && self.deferred.is_none() {
            let Ok(event) = timeout_at(deadline, inner.next()).await else { break };
            let ended = matches!(event, Event::End(_));
            self.take(event, &mut batch);
            if ended && self.at_end() {
                break;
            }
        }
        // No await from here on while the batch holds messages: dropping the future would drop them.
        let mut bytes = batch.iter().map(Message::size_bytes).sum::<usize>();
        if !batch.is_empty() && batch.len() < max && bytes < bytes_max && self.deferred.is_none() {
            inner.drain(|event| {
                if let Event::Message(message) = &event {
                    bytes += message.size_bytes();
                }
                self.take(event, &mut batch);
                batch.len() < max && bytes < bytes_max && self.deferred.is_none()
            });
        }
        if batch.is_empty() {
            if self.deferred.is_some() {
                return Err(self.explain().await);
            }
            self.pass_control_records();
        }
        Ok(batch)
    }

    /// Whether every partition has been read to where it ended when the broker was last asked. For [`Consumer::assign`] an
    /// open transaction ends a partition.
    pub fn at_end(&self) -> bool {
        self.at_end.len() == self.next.len()
    }

    /// Whether this partition has been read to there.
    pub fn is_at_end(&self, partition: i32) -> bool {
        self.at_end.contains(&partition)
    }

    /// The next offset of `partition`, `None` when it is not assigned. After an empty batch it lies behind control records
    /// and aborted records as well, which no message shows.
    pub fn position(&self, partition: i32) -> Option<i64> {
        self.next.get(&partition).copied()
    }

    /// Since when no broker can be reached, if so. It ends with the first fetch that succeeds. On a topic where nothing
    /// happens no fetch shows that; ask the brokers something, and call [`Consumer::answered`].
    pub fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// Ends the outage: the brokers have answered another question.
    pub fn answered(&mut self) {
        self.outage = None;
    }

    /// The partitions that cannot be read now, while others can.
    pub fn unreadable(&self) -> impl Iterator<Item = (i32, &Unreadable)> {
        let unreadable = self.unreadable.iter().map(|(partition, stuck)| (*partition, stuck));
        unreadable.filter(|(_partition, stuck)| stuck.last.elapsed() < ERROR_COUNTS)
    }

    /// Why nothing comes, once that has lasted for longer than `patience`.
    pub fn trouble(&self, patience: Duration) -> Option<Error> {
        let lasts = |since: Instant| since.elapsed() > patience;
        if let Some(outage) = self.outage.as_ref().filter(|outage| lasts(outage.since)) {
            return Some(Error::Transient { doing: POLLING, source: outage.why.clone() });
        }
        let (partition, stuck) = self.unreadable().find(|(_partition, stuck)| lasts(stuck.since))?;
        Some(Error::Unreadable { partition, offset: stuck.offset, source: stuck.why.clone() })
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
                .client()
                .fetch_watermarks(&topic, partition, ASK_TIMEOUT)
                .map_err(|source| Error::classify(WATERMARKS, &topic, source))
        })
    }

    fn take(&mut self, event: Event, batch: &mut Vec<Message>) {
        match event {
            Event::Message(message) => {
                self.outage = None;
                self.at_end.remove(&message.partition);
                self.reads_on(message.partition, message.offset);
                self.next.insert(message.partition, message.offset + 1);
                batch.push(message);
            }
            Event::End(partition) => {
                self.outage = None;
                self.unreadable.remove(&partition);
                self.at_end.insert(partition);
                self.passed_end = true;
            }
            Event::Away(why) => {
                self.outage.get_or_insert_with(|| Outage { since: Instant::now(), why });
            }
            Event::Connection => {}
            Event::Partition(partition, why) if needs_decision(&why) => self.deferred = Some((Some(partition), why)),
            Event::Partition(partition, why) => {
                let offset = self.position(partition).unwrap_or(-1);
                let now = Instant::now();
                let stuck = self.unreadable.entry(partition);
                let stuck = stuck.or_insert_with(|| Unreadable { since: now, offset, why, last: now });
                if stuck.last.elapsed() >= ERROR_COUNTS {
                    stuck.since = now;
                }
                stuck.last = now;
            }
            Event::Failure(error) => self.deferred = Some((None, error)),
        }
    }

    /// A partition that could not be read gives a record again. The library passes over a batch with a wrong checksum when
    /// others follow it, which must not go unseen.
    fn reads_on(&mut self, partition: i32, offset: i64) {
        let Some(stuck) = self.unreadable.remove(&partition) else { return };
        if offset > stuck.offset {
            tracing::error!(
                topic = self.topic,
                partition,
                from = stuck.offset,
                to = offset,
                error = %stuck.why,
                "records of the topic are damaged and were passed over"
            );
        }
    }

    /// Moves the positions behind records that are given to nobody: only the library knows them.
    fn pass_control_records(&mut self) {
        if !std::mem::take(&mut self.passed_end) {
            return;
        }
        let Ok(positions) = self.inner.client().position() else { return };
        for element in positions.elements() {
            if let (Offset::Offset(offset), Some(next)) = (element.offset(), self.next.get_mut(&element.partition())) {
                *next = offset.max(*next);
            }
        }
    }

    /// Turns the deferred error into ours. Until the library's answer to what is asked here, the error stays deferred.
    async fn explain(&mut self) -> Error {
        if let Some((at, error)) = &self.deferred
            && is_out_of_range(error)
        {
            let at = *at;
            for (&partition, &position) in &self.next {
                if at.is_some_and(|at| at != partition) {
                    continue;
                }
                match self.watermarks(partition).await {
                    Ok((low, high)) if (low..=high).contains(&position) => {}
                    Ok((low, high)) => {
                        return Error::OffsetOutOfRange { partition, position, low, high };
                    }
                    Err(error) => return error,
                }
            }
        }
        let source = self.deferred.take().map_or(KafkaError::NoMessageReceived, |(_partition, error)| error);
        Error::classify(POLLING, &self.topic, source)
    }
}

fn is_out_of_range(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
    matches!(error.rdkafka_error_code(), Some(AutoOffsetReset | OffsetOutOfRange))
}

/// Whether an error of one partition says that the topic is not what it was, or not ours to read.
fn needs_decision(error: &KafkaError) -> bool {
    let told = Error::classify(POLLING, "", error.clone());
    is_out_of_range(error) || matches!(told, Error::TopicMissing { .. } | Error::Fatal { .. })
}

fn settings(brokers: &Brokers, client_id: &str, partitions: usize, isolation: Isolation) -> ClientConfig {
    let mut config = config(brokers, client_id);
    // Each partition has a queue of its own, to which these limits apply.
    let share = |whole: usize, min: usize| whole.checked_div(partitions).unwrap_or(whole).max(min).to_string();
    let isolation = match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    };
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
        .set("isolation.level", isolation)
        .set("enable.partition.eof", "true")
        .set("allow.auto.create.topics", "false")
        // Latency: the broker answers with the first byte, and an idle fetch waits this long.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.error.backoff.ms", "50")
        // When the queue below is full, look again soon: the default second would cap a rebuild.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", share(AHEAD_RECORDS, AHEAD_RECORDS_MIN))
        .set("queued.max.messages.kbytes", share(AHEAD_KBYTES, AHEAD_KBYTES_MIN))
        // A topic that is recreated or moved is noticed within seconds, not minutes.
        .set("topic.metadata.refresh.interval.ms", "5000");
    config
}
