//! A relay's time in office: from taking the lease to losing it or giving it back.

use chassis::kafka::producer::{Delivered, Outgoing, Producer};
use chassis::kafka::topic::{self, Asker};
use sqlx::postgres::PgConnection;
use tokio::time::Instant;

use super::lease::{Heartbeat, Lease};
use super::log::LoggedEvent;
use super::progress::Progress;
use super::{Error, Setup, reconcile};
use crate::metrics::{RELAY_BATCH_EVENTS, RELAY_PUBLISHED, RELAY_TOPIC_LOSSES};

/// Marks offsets as not known: any topic disagrees with it, so that a reconciliation cut short is done again.
pub(super) const OFFSET_UNKNOWN: i64 = i64::MAX;

/// Why a topic is known to be another one.
const BACKWARDS: &str = "an acknowledged offset is lower than one before it";

/// How often outbox partitions are made and dropped, and old progress rows deleted.
const HOUSEKEEPING: std::time::Duration = std::time::Duration::from_secs(10);
/// How many progress rows are kept to look at.
const PROGRESS_ROWS_KEPT: i64 = 100;
/// The most progress rows that are deleted at a time.
const PROGRESS_ROWS_DELETED_MAX: i64 = 20_000;

/// How long checking and making the topic may take.
const TOPIC_DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

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
    /// Takes office: checks the topic, connects, loads the progress, and restores what the topic has lost meanwhile.
    pub(crate) async fn begin(setup: &Setup, connection: &mut PgConnection, lease: Lease) -> Result<Self, Error> {
        let term = async {
            setup.status.waits(TOPIC_DEADLINE);
            let verified = verify_or_make(setup).await?;
            setup.status.alive();
            let producer = Producer::connect(&setup.brokers, "order-command-relay")?;
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
            topic_check_due: now,
            housekeeping_due: now,
        };
        tracing::info!(epoch = term.lease.epoch, owner = setup.owner, "the relay is in office");
        if let Err(error) = term.check_topic(connection).await {
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
            self.housekeep(connection).await?;
            self.housekeeping_due = Instant::now() + HOUSEKEEPING;
        }
        Ok(true)
    }

    /// Gives the lease back.
    pub(crate) async fn end(self, connection: &mut PgConnection) -> Result<(), Error> {
        tracing::info!(epoch = self.lease.epoch, "the relay leaves office");
        self.lease.release(connection).await?;
        Ok(())
    }

    /// Publishes the next batch. Returns how many events it had; none means that everything is published.
    pub(crate) async fn publish_next(&mut self, connection: &mut PgConnection) -> Result<usize, Error> {
        if self.progress.window.is_none() && !self.progress.open_window(connection).await? {
            if Instant::now() >= self.topic_check_due {
                self.check_topic(connection).await?;
            }
            return Ok(0);
        }
        let rows_max = self.setup.limits.batch_events_max;
        let events = match self.next.take() {
            Some(events) => events,
            None => self.progress.read(connection, None, rows_max).await?,
        };
        let last = events.len() < rows_max;
        if let Some(final_event) = events.last() {
            self.next = self.send_reading_ahead(connection, &events, (!last).then_some(final_event.seq)).await?;
        }
        self.progress.advance(events.last().map_or(0, |event| event.seq), last)?;
        self.save(connection).await?;
        if events.is_empty() {
            // The window had been published to its end before; look at once for what came after it.
            return Box::pin(self.publish_next(connection)).await;
        }
        Ok(events.len())
    }

    /// Sends a batch and, while it is in flight, reads the next one of the window, if there is to be one after `seq`.
    async fn send_reading_ahead(
        &mut self,
        connection: &mut PgConnection,
        events: &[LoggedEvent],
        seq: Option<i64>,
    ) -> Result<Option<Vec<LoggedEvent>>, Error> {
        let rows_max = self.setup.limits.batch_events_max;
        let Some(seq) = seq else {
            self.send(connection, events).await?;
            return Ok(None);
        };
        let ahead = async { Ok(self.progress.read(connection, Some(seq), rows_max).await?) };
        // The question goes out first: PostgreSQL works on it while this task builds and enqueues the records.
        let (next, delivered) = tokio::try_join!(ahead, self.deliver(events))?;
        if self.note(&delivered) {
            self.restore(connection, BACKWARDS).await?;
            self.send(connection, events).await?;
        }
        Ok(Some(next))
    }

    /// Sends events in order and notes where they went. A topic whose offsets went back has lost records.
    pub(crate) async fn send(&mut self, connection: &mut PgConnection, events: &[LoggedEvent]) -> Result<(), Error> {
        loop {
            let delivered = self.deliver(events).await?;
            if !self.note(&delivered) {
                return Ok(());
            }
            self.restore(connection, BACKWARDS).await?;
            // The topic that is gone may have acknowledged some of these, and what is not recorded as published is not
            // restored: send them once more.
        }
    }

    /// Notes the acknowledged offsets. True when one is lower than one before it: the topic is another one.
    fn note(&mut self, delivered: &[Delivered]) -> bool {
        let mut backwards = false;
        for Delivered { partition, offset } in delivered {
            let Some(next) = usize::try_from(*partition).ok().and_then(|p| self.progress.next_offsets.get_mut(p))
            else {
                continue;
            };
            backwards |= *next != OFFSET_UNKNOWN && *offset < *next;
            *next = offset + 1;
        }
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

    /// Compares the topic's ends with what was acknowledged, and restores what is gone.
    async fn check_topic(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        let name = &self.setup.topic.name;
        let ends = self.asker.end_offsets(name, self.setup.topic.partitions).await?;
        let lost = ends.iter().zip(&self.progress.next_offsets).any(|((_low, high), next)| high < next);
        if lost {
            self.restore(connection, "the topic ends before what was acknowledged").await?;
        }
        self.topic_check_due = Instant::now() + self.setup.limits.topic_check;
        Ok(())
    }

    /// Publishes again exactly what the topic has lost. Live publishing waits for it.
    pub(crate) async fn restore(&mut self, connection: &mut PgConnection, why: &str) -> Result<u64, Error> {
        tracing::error!(topic = self.setup.topic.name, why, "the topic has lost events; they are published again");
        metrics::counter!(RELAY_TOPIC_LOSSES).increment(1);
        // Until it is done, nothing is known of the topic.
        self.progress.next_offsets.fill(OFFSET_UNKNOWN);
        self.save(connection).await?;
        let restored = reconcile::restore(self, connection).await?;
        let name = &self.setup.topic.name;
        let ends = self.asker.end_offsets(name, self.setup.topic.partitions).await?;
        self.progress.next_offsets = ends.into_iter().map(|(_low, high)| high).collect();
        self.save(connection).await?;
        tracing::warn!(topic = self.setup.topic.name, events = restored, "the topic is complete again");
        Ok(restored)
    }

    async fn save(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        if self.progress.save(connection, self.lease.epoch).await? { Ok(()) } else { Err(Error::LeaseLost) }
    }

    async fn housekeep(&mut self, connection: &mut PgConnection) -> Result<(), Error> {
        sqlx::query("select outbox_partitions_ensure()").execute(&mut *connection).await?;
        sqlx::query("select outbox_partitions_purge($1::pg_snapshot, make_interval(secs => $2))")
            .bind(self.progress.done.as_str())
            .bind(f64::from(self.setup.limits.outbox_keep_s))
            .execute(&mut *connection)
            .await?;
        sqlx::query(
            "delete from relay_progress where (epoch, id) in (
                 select epoch, id from relay_progress
                 where (epoch, id) < (select epoch, id from relay_progress
                                      order by epoch desc, id desc offset $1 limit 1)
                 limit $2)",
        )
        .bind(PROGRESS_ROWS_KEPT)
        .bind(PROGRESS_ROWS_DELETED_MAX)
        .execute(connection)
        .await?;
        Ok(())
    }

    pub(super) fn setup(&self) -> &Setup {
        &self.setup
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }
}
