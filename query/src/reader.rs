//! The topic as this service reads it: from positions of its own, and only while it is the topic they are about (R8).
//!
//! Kafka does not tell when a topic is deleted and made anew: an offset then means another record, and reading on would
//! skip silently. So a record that was applied is looked up again now and then, and must still be the same.

mod ahead;

mod look;

mod trouble;

use std::future::pending;
use std::sync::OnceLock;
use std::time::Duration;

use chassis::kafka::consumer::{Consumer, record_at};
use chassis::kafka::topic::{Asker, Drift, Unfit};
use chassis::kafka::{self, Brokers, TopicSpec};
use domain::{Currency, schema};
use futures_util::future::try_join_all;
use thiserror::Error;
use tokio::time::{Instant, sleep_until};

use crate::checkpoint::{Anchor, Checkpoint, Checkpoints, Origin, Proof};
use crate::intake::{Incoming, Record};
use ahead::Ahead;
use look::Look;
use trouble::Away;

pub use trouble::Trouble;

/// The most records of one batch. SQLite writes a page of a table once in a transaction, however many of the rows that the
/// transaction writes are on it.
pub const BATCH_RECORDS_MAX: usize = 16_000;
/// Records of one batch have so many bytes together, or less than their last one more. It is in memory several times: as
/// records, events and rows.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a poll waits for a first record.
const POLL_WAIT: Duration = Duration::from_millis(500);
/// How long each question of a survey may take. Brokers that do not answer are told of after that, and asked again.
const SURVEY_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the topic may have records for us, and none come, before the consumer is replaced.
const STALL_MAX: Duration = Duration::from_secs(10);

/// Why the topic cannot be read now.
#[derive(Debug, Error)]
pub enum NotReadable {
    /// It does not exist.
    #[error("the topic {topic} does not exist")]
    Missing {
        /// Which.
        topic: String,
    },
    /// It would lose or reorder events.
    #[error("the topic cannot be relied on")]
    Unfit(#[source] Unfit),
    /// The brokers do not answer, or not well.
    #[error("the brokers do not answer")]
    Kafka(#[source] kafka::Error),
    /// It is not the topic that was read so far.
    #[error("the topic is not the one that was read so far: {reason}")]
    Replaced {
        /// What gave it away.
        reason: String,
    },
}

impl From<kafka::Error> for NotReadable {
    fn from(error: kafka::Error) -> Self {
        match error {
            kafka::Error::TopicMissing { topic } => Self::Missing { topic },
            kafka::Error::OffsetOutOfRange { .. } => Self::Replaced { reason: error.to_string() },
            error => Self::Kafka(error),
        }
    }
}

impl From<Unfit> for NotReadable {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Missing { topic } => Self::Missing { topic },
            Unfit::Unverified(error) => error.into(),
            unfit @ Unfit::Drift(_) => Self::Unfit(unfit),
        }
    }
}

/// Where reading starts.
#[derive(Debug)]
pub struct Opening {
    /// Which log it is.
    pub origin: Origin,
    /// Why the existing checkpoints are about another log, if they are: reading starts at the beginning.
    pub replaced: Option<String>,
    /// Partitions whose beginning is gone, with the first offset that is left.
    pub beheaded: Vec<(i32, i64)>,
    positions: Vec<(i32, i64)>,
}

/// What waiting for the topic has brought.
#[derive(Debug)]
pub enum News {
    /// Records, decoded; none when there are none for a while.
    Records(Vec<Incoming>),
    /// The topic was looked at and is the one that was read so far.
    Same(Option<Proof>),
    /// The brokers did not answer a look at the topic. Records come as soon as they answer again.
    Unanswered,
}

/// The reading end of the topic.
#[derive(Debug)]
pub struct TopicReader {
    brokers: Brokers,
    spec: TopicSpec,
    consumer: Option<Consumer>,
    /// Where the consumer is while it reads ahead.
    ahead: Option<Ahead>,
    /// What it came back with.
    ready: Option<ahead::Read>,
    /// The client for questions, from the first one on.
    asker: OnceLock<Asker>,
    next_look: Instant,
    look: Option<Look>,
    /// Something went wrong, which may have been more than it seems: nothing is read before the topic was looked at.
    doubtful: bool,
    /// The checkpoint that the next look looks up.
    turn: usize,
    /// The brokers do not answer.
    away: Option<Away>,
    /// The topic has lost a property that it had when reading began.
    drift: Option<Drift>,
    /// When the settings of the topic are to be verified again.
    next_verify: Instant,
    /// Since when looks show that the topic has more for us, and nothing comes.
    waits_since: Option<Instant>,
}

impl TopicReader {
    /// A reader of this topic that has not asked for it yet.
    pub fn new(brokers: Brokers, spec: TopicSpec) -> Self {
        Self {
            brokers,
            spec,
            consumer: None,
            ahead: None,
            ready: None,
            asker: OnceLock::new(),
            next_look: Instant::now(),
            look: None,
            doubtful: false,
            turn: 0,
            away: None,
            drift: None,
            next_verify: Instant::now(),
            waits_since: None,
        }
    }

    /// Another reader of this topic, to survey it.
    #[must_use]
    pub fn surveyor(&self) -> Self {
        Self { asker: self.asker.clone(), ..Self::new(self.brokers.clone(), self.spec.clone()) }
    }

    /// The client for questions; its connections stay open.
    fn asker(&self) -> Result<Asker, kafka::Error> {
        if let Some(asker) = self.asker.get() {
            return Ok(asker.clone());
        }
        let made = Asker::for_readers(&self.brokers)?;
        Ok(self.asker.get_or_init(|| made).clone())
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.spec.name
    }

    /// Whether it reads.
    pub fn is_open(&self) -> bool {
        self.consumer.is_some() || self.ahead.is_some()
    }

    /// The next offset of each partition while nothing that was read is left to apply: behind control records too, which no
    /// checkpoint shows. None while it does not read.
    pub fn positions(&self) -> Vec<(i32, i64)> {
        let Some(consumer) = self.consumer.as_ref().filter(|_consumer| self.ready.is_none()) else { return Vec::new() };
        let position = |partition| Some((partition, consumer.position(partition)?));
        (0..self.spec.partitions).filter_map(position).collect()
    }

    /// Stops reading; the next reading starts with [`TopicReader::survey`].
    pub fn close(&mut self) {
        self.consumer = None;
        self.ahead = None;
        self.ready = None;
        self.look = None;
        self.away = None;
        self.waits_since = None;
    }

    /// Verifies the topic and finds where reading starts: where the checkpoints say, or at the beginning when they are
    /// about another log.
    ///
    /// # Errors
    ///
    /// When the topic is missing or unfit, or the brokers do not answer.
    pub async fn survey(&self, checkpoints: &Checkpoints) -> Result<Opening, NotReadable> {
        let asker = self.asker()?.within(SURVEY_TIMEOUT);
        let verified = asker.verify(&self.spec).await?;
        let topic = &self.spec.name;
        let origin = Origin { cluster_id: verified.cluster_id.unwrap_or_default(), topic: topic.clone() };
        let ends = asker.end_offsets(topic, self.spec.partitions).await?;
        let replaced = self.replaced(checkpoints, &origin, &ends).await?;
        let mut positions = Vec::with_capacity(ends.len());
        let mut beheaded = Vec::new();
        for (partition, (low, _high)) in (0..).zip(&ends) {
            let known = checkpoints.partitions.iter().find(|checkpoint| checkpoint.partition == partition);
            match known {
                Some(checkpoint) if replaced.is_none() => positions.push((partition, checkpoint.next_offset())),
                _ => {
                    positions.push((partition, *low));
                    if *low > 0 {
                        beheaded.push((partition, *low));
                    }
                }
            }
        }
        Ok(Opening { origin, replaced, beheaded, positions })
    }

    /// Starts reading.
    ///
    /// # Errors
    ///
    /// When the client cannot be built.
    pub fn open(&mut self, opening: &Opening) -> Result<(), NotReadable> {
        let consumer = Consumer::assign(&self.brokers, &self.spec.name, &opening.positions, "order-query")?;
        self.close();
        self.consumer = Some(consumer);
        self.doubtful = false;
        self.drift = None;
        self.next_look = Instant::now() + look::INTERVAL;
        self.next_verify = Instant::now() + look::VERIFY_INTERVAL;
        Ok(())
    }

    /// Waits for records, or for the end of a look at the topic. Messages that name no currency are in `default_currency`. Dropping this future loses nothing.
    ///
    /// Brokers that do not answer are no error: see [`TopicReader::trouble`].
    ///
    /// # Errors
    ///
    /// When the topic cannot be read. [`NotReadable::Kafka`] may go away by itself; after all others, survey again.
    /// [`NotReadable::Replaced`] when it is another topic than the one that was read.
    pub async fn next(&mut self, default_currency: Currency) -> Result<News, NotReadable> {
        self.catch_up().await?;
        let Self { consumer: Some(consumer), look, ready, doubtful, next_look, .. } = self else {
            return Ok(News::Records(Vec::new()));
        };
        let (polls, looks, next_look) = (!*doubtful, look.is_some(), *next_look);
        let looked = async {
            match look {
                Some(look) => look.await,
                None => pending().await,
            }
        };
        let read = async {
            match ready.take() {
                Some(read) => read,
                None => {
                    let messages = consumer.poll_sized(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, POLL_WAIT).await?;
                    // This waits for nothing, so nobody can drop it with the messages in its hands.
                    let records = messages.into_iter().map(Record::from).collect();
                    Ok(Incoming::read_all(records, default_currency).await)
                }
            }
        };
        tokio::select! {
            biased;
            looked = looked => {
                self.look = None;
                let thread = |source| kafka::Error::Thread { doing: "looking at the topic", source };
                self.learn(looked.map_err(thread)?)
            }
            read = read, if polls => match read {
                Ok(records) => {
                    self.has_read(records.len());
                    Ok(News::Records(records))
                }
                Err(error) => {
                    // A look that began before says nothing of what has happened.
                    self.look = None;
                    self.doubtful = true;
                    self.next_look = Instant::now();
                    Err(error.into())
                }
            },
            () = sleep_until(next_look), if !polls && !looks => Ok(News::Records(Vec::new())),
        }
    }

    fn has_read(&mut self, records: usize) {
        let Some(consumer) = &self.consumer else { return };
        if records > 0 {
            self.waits_since = None;
            self.away = None;
        }
        if consumer.outage().is_some() {
            // Where nothing happens no fetch shows that the brokers are back, but an answer does.
            self.next_look = self.next_look.min(Instant::now() + look::RETRY_INTERVAL);
        }
    }

    /// What shows that the checkpoints are about another log, if anything does.
    async fn replaced(
        &self,
        checkpoints: &Checkpoints,
        origin: &Origin,
        ends: &[(i64, i64)],
    ) -> Result<Option<String>, NotReadable> {
        let Some(of) = &checkpoints.of else {
            return Ok(None);
        };
        if of != origin {
            let Origin { topic, cluster_id } = of;
            return Ok(Some(format!("what was read is topic {topic} of cluster {cluster_id}")));
        }
        for (partition, (_low, high)) in (0..).zip(ends) {
            let known = checkpoints.partitions.iter().find(|checkpoint| checkpoint.partition == partition);
            if let Some(checkpoint) = known
                && *high < checkpoint.next_offset()
            {
                return Ok(Some(ends_before(partition, *high, checkpoint.next_offset())));
            }
        }
        let anchors = checkpoints.partitions.iter().flat_map(|Checkpoint { partition, last, proven }| {
            let older = Some(proven).filter(|proven| *proven != last);
            [Some(last), older].into_iter().flatten().map(|anchor| self.contradiction(*partition, *anchor))
        });
        Ok(try_join_all(anchors).await?.into_iter().flatten().next())
    }

    async fn contradiction(&self, partition: i32, anchor: Anchor) -> Result<Option<String>, kafka::Error> {
        let Anchor { offset, digest } = anchor;
        let found = record_at(&self.brokers, &self.spec.name, partition, offset).await?;
        Ok(match found {
            None => Some(format!("partition {partition} has no record at offset {offset} any more")),
            Some(message) if schema::digest(message.payload.as_deref().unwrap_or_default()) != digest => {
                Some(format!("partition {partition} has another record at offset {offset}"))
            }
            Some(_same) => None,
        })
    }
}

fn ends_before(partition: i32, high: i64, position: i64) -> String {
    format!("partition {partition} ends at {high}, before {position}")
}

#[cfg(test)]
mod tests;
