//! A relay's time in office: from taking the lease to losing it or giving it back.

use std::time::Duration;

use chassis::kafka::producer::{Delivered, Outgoing, Producer};
use chassis::kafka::topic::{self, Asker};
use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::ahead::{Ahead, Finding, examine};
use super::lease::{Heartbeat, Lease};
use super::log::LoggedEvent;
use super::progress::{Opening, Progress};
use super::reconcile::{self, Why};
use super::{Error, Setup, Step, housekeeping, moved};
use crate::metrics::{RELAY_BATCH_EVENTS, RELAY_PUBLISHED, RELAY_TOPIC_AHEAD_ORDERS, RELAY_TOPIC_LOSSES};

/// Marks offsets as not known: a comparison of log and topic is due, or was cut short.
pub(super) const OFFSET_UNKNOWN: i64 = i64::MAX;

/// For how long after an acknowledgement or a look the topic is taken for the same. Deleting one and making another takes
/// the brokers longer; a batch after a longer rest looks at it first.
const TOPIC_TRUSTED: Duration = Duration::from_millis(20);

/// How soon a topic that is ahead of the log is looked at again, and at least how many times as long as a look takes.
const AHEAD_REST: Duration = Duration::from_secs(5);
const AHEAD_REST_FACTOR: u32 = 10;

/// How long checking and making the topic may take.
const TOPIC_DEADLINE: Duration = Duration::from_secs(60);

/// What a relay has while it is in office.
#[derive(Debug)]
pub(crate) struct Term {
    setup: Setup,
    lease: Lease,
    producer: Producer,
    asker: Asker,
    progress: Progress,
    /// The batch after the one that was sent last, read while that was in flight.
    next: Option<Vec<LoggedEvent>>,
    /// Nothing may be published while this is so.
    ahead: Option<Ahead>,
    ahead_check_due: Instant,
    /// How many events were restored, if the log was compared with the topic in this term.
    restored: Option<u64>,
    topic_seen: Instant,
    topic_check_due: Instant,
    housekeeping_due: Instant,
}

/// The topic may be missing because the broker was not there when the service started, or because somebody deleted it.
async fn verify_or_make(setup: &Setup) -> Result<topic::Verified, Error> {
    match topic::verify(&setup.brokers, &setup.topic).await {
        Err(topic::Unfit::Missing { topic: name }) => {
            tracing::info!(topic = name, "the topic does not exist; it is made");
            topic::ensure(&setup.brokers, &setup.topic).await?;
            Ok(topic::verify(&setup.brokers, &setup.topic).await?)
        }
        verified => Ok(verified?),
    }
}

impl Term {
    /// Takes office: checks the topic, connects, loads the progress, and makes sure that log, progress and topic go together.
    pub(crate) async fn begin(setup: &Setup, connection: &mut PgConnection, lease: Lease) -> Result<Self, Error> {
        let term = async {
            setup.status.waits(TOPIC_DEADLINE);
            let verified = verify_or_make(setup).await?;
            setup.status.alive();
            let producer = Producer::connect(&setup.brokers, "order-command-relay")?;
            producer.warm(&setup.topic.name).await?;
            let asker = Asker::connect(&setup.brokers)?;
            let partitions = usize::try_from(setup.topic.partitions).unwrap_or_default();
            let mut progress = Progress::load(connection, partitions).await?;
            let moved = progress.cluster_id.is_some() && progress.cluster_id != verified.cluster_id;
            if moved {
                tracing::warn!(cluster_id = ?verified.cluster_id, "the broker belongs to another cluster than before");
                progress.next_offsets.fill(OFFSET_UNKNOWN);
            }
            progress.cluster_id = verified.cluster_id;
            Ok::<_, Error>((producer, asker, progress))
        }
        .await;
        let (producer, asker, progress) = match term {
            Ok(begun) => begun,
            Err(error) => {
                // Somebody else may be luckier, without waiting for the lease to run out.
                lease.release(connection).await?;
                return Err(error);
            }
        };
        let now = Instant::now();
        let mut term = Self {
            setup: setup.clone(),
            lease,
            producer,
            asker,
            progress,
            next: None,
            ahead: None,
            ahead_check_due: now,
            restored: None,
            topic_seen: now,
            topic_check_due: now,
            housekeeping_due: now,
        };
        tracing::info!(epoch = term.lease.epoch, owner = setup.owner, "the relay is in office");
        if let Err(error) = term.settle(connection).await {
            term.end(connection).await?;
            return Err(error);
        }
        Ok(term)
    }

    /// Until when the lease can be trusted.
    pub(super) fn trusted_until(&self) -> Instant {
        self.lease.trusted_until()
    }

    /// Renews the lease when it is time. False when it must be handed over.
    pub(crate) async fn keep(&mut self, connection: &mut PgConnection) -> Result<bool, Error> {
        if self.lease.heartbeat_is_due() || !self.lease.is_trusted() {
            match self.lease.heartbeat(connection).await? {
                Heartbeat::Held => {
                    self.setup.status.alive();
                    self.setup.status.in_office(Some(self.lease.trusted_until()));
                }
                Heartbeat::Wanted => return Ok(false),
                Heartbeat::Lost => return Err(Error::LeaseLost),
            }
        }
        if Instant::now() >= self.housekeeping_due {
            housekeeping::once(connection, self.setup.limits.outbox_keep_s).await?;
            self.housekeeping_due = Instant::now() + housekeeping::INTERVAL;
        }
        Ok(true)
    }

    /// Renews the lease in the middle of work that helps nobody half done: whoever wants the office waits.
    pub(super) async fn stay(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        let _wanted = self.keep(connection).await?;
        Ok(())
    }

    /// Gives the lease back.
    pub(crate) async fn end(self, connection: &mut PgConnection) -> Result<(), Error> {
        tracing::info!(epoch = self.lease.epoch, "the relay leaves office");
        self.lease.release(connection).await?;
        Ok(())
    }

    /// Makes sure that log, progress and topic go together before anything is published.
    async fn settle(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        let began = Instant::now();
        if let Some(why) = self.progress.foreign() {
            moved::adopt(self, connection, why).await?;
        }
        match examine(self, connection).await? {
            Finding::Known => self.refuse(None),
            Finding::Ahead(ahead) => self.refuse(Some(ahead)),
            Finding::Lost(why) => {
                self.restore(connection, why).await?;
            }
        }
        self.ahead_check_due = Instant::now() + AHEAD_REST.max(began.elapsed() * AHEAD_REST_FACTOR);
        Ok(())
    }

    /// Notes whether the topic is ahead of the log, and says so when that changes.
    fn refuse(&mut self, ahead: Option<Ahead>) {
        // Also by an earlier term of this process.
        if self.setup.status.report().ahead != ahead {
            match &ahead {
                Some(ahead) => tracing::error!(topic = self.setup.topic.name, "{ahead}; nothing is published"),
                None => tracing::warn!(topic = self.setup.topic.name, "the topic is not ahead of the log any more"),
            }
        }
        metrics::gauge!(RELAY_TOPIC_AHEAD_ORDERS).set(ahead.as_ref().map_or(0, Ahead::orders) as f64);
        self.setup.status.ahead(ahead.clone());
        self.ahead = ahead;
    }

    /// Publishes the next batch.
    pub(crate) async fn publish_next(&mut self, connection: &mut PgConnection) -> Result<Step, Error> {
        /// A window that was published to its end before is followed by the next one.
        const WINDOWS_MAX: usize = 2;
        if self.ahead.is_some() {
            if Instant::now() >= self.ahead_check_due {
                self.settle(connection).await?;
            }
            return Ok(Step::Refused);
        }
        for _ in 0..WINDOWS_MAX {
            if self.progress.window.is_none() {
                match self.progress.open_window(connection).await? {
                    Opening::Open => {}
                    Opening::Empty => return self.rest(connection).await,
                    Opening::Foreign => return Err(Error::Moved),
                }
            }
            let events = self.publish_window(connection).await?;
            if events > 0 {
                return Ok(Step::Published(events));
            }
        }
        Ok(Step::Idle)
    }

    /// Looks at the topic now and then while there is nothing to publish.
    async fn rest(&mut self, connection: &mut PgConnection) -> Result<Step, Error> {
        if Instant::now() < self.topic_check_due {
            return Ok(Step::Idle);
        }
        let ends = self.ends().await?;
        self.topic_check_due = Instant::now() + self.setup.limits.topic_check;
        if self.is_shorter(&ends) {
            self.restore(connection, Why::Shorter).await?;
        }
        Ok(Step::Idle)
    }

    /// Publishes the next batch of the open window and saves the progress. Returns how many events it had.
    async fn publish_window(&mut self, connection: &mut PgConnection) -> Result<usize, Error> {
        let rows_max = self.setup.limits.batch_events_max;
        let (events, shorter) = match self.next.take() {
            Some(events) => (events, false),
            None => {
                let read = async { Ok(self.progress.read(connection, None, rows_max).await?) };
                tokio::try_join!(read, self.was_replaced())?
            }
        };
        if shorter {
            self.restore(connection, Why::Shorter).await?;
            return Ok(events.len());
        }
        let last = events.len() < rows_max;
        if let Some(final_event) = events.last() {
            let ahead_of = (!last).then_some(final_event.seq);
            if !self.send_reading_ahead(connection, &events, ahead_of).await? {
                // The topic has these and everything before them; the progress says so already.
                return Ok(events.len());
            }
        }
        self.progress.advance(events.last().map_or(0, |event| event.seq), last)?;
        self.save(connection).await?;
        Ok(events.len())
    }

    /// Whether the topic is shorter than it was, unless it was seen a moment ago.
    async fn was_replaced(&self) -> Result<bool, Error> {
        if self.topic_seen.elapsed() < TOPIC_TRUSTED {
            return Ok(false);
        }
        Ok(self.is_shorter(&self.ends().await?))
    }

    /// Sends a batch and, while it is in flight, reads the next one of the window, if there is to be one after `seq`.
    /// False when the topic had to be restored instead.
    async fn send_reading_ahead(
        &mut self,
        connection: &mut PgConnection,
        events: &[LoggedEvent],
        seq: Option<i64>,
    ) -> Result<bool, Error> {
        let rows_max = self.setup.limits.batch_events_max;
        let Some(seq) = seq else { return self.send(connection, events).await };
        let ahead = async { Ok(self.progress.read(connection, Some(seq), rows_max).await?) };
        // The question goes out first: PostgreSQL works on it while this task builds and enqueues the records.
        let (next, delivered) = tokio::try_join!(ahead, self.deliver(events))?;
        if self.note(&delivered) {
            self.restore(connection, Why::Backwards).await?;
            return Ok(false);
        }
        self.next = Some(next);
        Ok(true)
    }

    /// Sends events in order and notes where they went. False when the topic turned out to be another one and was restored,
    /// with these events.
    pub(crate) async fn send(&mut self, connection: &mut PgConnection, events: &[LoggedEvent]) -> Result<bool, Error> {
        if let Some(ahead) = &self.ahead {
            return Err(Error::Ahead(ahead.clone()));
        }
        let delivered = self.deliver(events).await?;
        let backwards = self.note(&delivered);
        if backwards {
            self.restore(connection, Why::Backwards).await?;
        }
        Ok(!backwards)
    }

    /// Notes the acknowledged offsets. True when one is lower than one before it: the topic is another one.
    fn note(&mut self, delivered: &[Delivered]) -> bool {
        let mut backwards = false;
        for Delivered { partition, offset } in delivered {
            let Some(next) = usize::try_from(*partition).ok().and_then(|p| self.progress.next_offsets.get_mut(p))
            else {
                continue;
            };
            backwards |= *offset < *next;
            *next = offset + 1;
        }
        self.topic_seen = Instant::now();
        backwards
    }

    /// Sends events in order while the lease can be trusted, and awaits every acknowledgement.
    pub(super) async fn deliver(&self, events: &[LoggedEvent]) -> Result<Vec<Delivered>, Error> {
        if !self.lease.is_trusted() {
            return Err(Error::LeaseLost);
        }
        let keys: Vec<String> = events.iter().map(|event| event.order_id().to_string()).collect();
        let partitions = self.setup.topic.partitions;
        let records: Vec<Outgoing<'_>> = events
            .iter()
            .zip(&keys)
            // By our own count: nobody reads the partitions that somebody adds.
            .map(|(event, key)| Outgoing {
                partition: Some(topic::partition_of(key.as_bytes(), partitions)),
                ..event.record(key)
            })
            .collect();
        let timeout = self.setup.limits.acks_timeout;
        self.setup.status.waits(timeout);
        let delivered = self.producer.send_batch(&self.setup.topic.name, &records, timeout).await?;
        self.setup.status.alive();
        self.setup.status.published();
        metrics::counter!(RELAY_PUBLISHED).increment(events.len() as u64);
        metrics::histogram!(RELAY_BATCH_EVENTS).record(events.len() as f64);
        Ok(delivered)
    }

    /// Where the topic's partitions begin and end.
    pub(super) async fn ends(&self) -> Result<Vec<(i64, i64)>, Error> {
        Ok(self.asker.end_offsets(&self.setup.topic.name, self.setup.topic.partitions).await?)
    }

    fn is_shorter(&self, ends: &[(i64, i64)]) -> bool {
        ends.iter().zip(&self.progress.next_offsets).any(|((_low, high), next)| high < next)
    }

    /// Publishes exactly what the topic does not have, unless it is ahead of the log. Live publishing waits for it.
    pub(super) async fn restore(&mut self, connection: &mut PgConnection, why: Why) -> Result<u64, Error> {
        let topic = self.setup.topic.name.clone();
        if matches!(why, Why::Asked | Why::Unknown) {
            tracing::info!(topic, %why, "the log is compared with the topic");
        } else {
            tracing::error!(topic, %why, "the topic has lost events; they are published again");
            metrics::counter!(RELAY_TOPIC_LOSSES).increment(1);
        }
        // Until it is done, nothing is known of the topic.
        self.next = None;
        self.progress.next_offsets.fill(OFFSET_UNKNOWN);
        self.save(connection).await?;
        match reconcile::restore(self, connection).await? {
            reconcile::Outcome::Ahead(ahead) => {
                self.refuse(Some(ahead));
                Ok(0)
            }
            reconcile::Outcome::Whole { restored, done, next_offsets } => {
                self.progress.settle(done);
                self.progress.next_offsets = next_offsets;
                self.save(connection).await?;
                self.topic_seen = Instant::now();
                self.restored = Some(self.restored.unwrap_or(0) + restored);
                self.refuse(None);
                tracing::warn!(topic, restored, "the topic is complete");
                Ok(restored)
            }
        }
    }

    pub(super) async fn save(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        if self.progress.save(connection, self.lease.epoch).await? { Ok(()) } else { Err(Error::LeaseLost) }
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    pub(super) fn progress_mut(&mut self) -> &mut Progress {
        &mut self.progress
    }

    /// How many events were restored, if the log was compared with the topic in this term.
    pub(super) fn restored(&self) -> Option<u64> {
        self.restored
    }

    /// Whether the topic is ahead of the log.
    pub(crate) fn ahead(&self) -> Option<&Ahead> {
        self.ahead.as_ref()
    }
}
