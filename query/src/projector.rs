//! From the topic into the read model, a batch at a time.
//!
//! Poll → decode → version gate → fold in memory → write the rows and the checkpoint in ONE transaction → announce.
//!
//! - **Invariant:** the checkpoint moves in the transaction of what it covers, so a crash at any point repeats or
//!   resumes, and never skips (rules R8).
//! - **Invariant:** where nodes share a store, one of them reads the topic and writes; the others wait for their turn.
//! - **Invariant:** every record ends applied, known already, waiting, or set aside with a reason; each of those is
//!   a row or was one before (rules R9, R10).

mod reading;

mod report;

mod save;

mod intervene;

mod heal;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use chassis::telemetry::ErrorChain;
use domain::{Currency, OrderId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use reading::Read;
use save::Filling;

use crate::batch::Batch;
use crate::checkpoint::Checkpoints;
use crate::freshness::Freshness;
use crate::generation::Revisions;
use crate::healing::Healing;
use crate::intake::{Incoming, Record};
use crate::live::CHANGES_KEPT;
use crate::metrics;
use crate::progress::Progress;
use crate::reader::TopicReader;
use crate::store::{self, Writer};

/// Orders whose waiting events are tried again in one transaction at start.
const RETRY_ORDERS_MAX: u32 = 500;
/// How long to rest when the topic cannot be read or the database fails.
const REST: Duration = Duration::from_millis(500);

/// The one that writes the read model.
#[derive(Debug)]
pub struct Projector {
    writer: Writer,
    reader: TopicReader,
    default_currency: Currency,
    freshness: Freshness,
    progress: Progress,
    filling: Filling,
    /// As committed, except that `proven` may be ahead of the store.
    checkpoints: Checkpoints,
    /// Events that wait for a newer program are tried again once, at start: this may be that program.
    retried: bool,
    /// Whether readers are served from here: a generation that is built beside says nothing in the metrics.
    served: bool,
    /// When to look for operators' wishes again.
    look_at: Instant,
    healing: Option<Healing>,
    /// Wishes that are with the healer.
    asked: BTreeSet<Uuid>,
    /// The kind of trouble that was told last, until the topic can be read again, and whether it was told as a warning.
    told_trouble: Option<(&'static str, bool)>,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It applied a batch.
    Applied(Summary),
    /// There was nothing to apply.
    Idle,
    /// The topic cannot be read now.
    Waiting,
    /// Another node projects.
    Standby,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events applied, those that had waited among them.
    pub applied: usize,
    /// Events that were known already.
    pub duplicates: u64,
    /// Events that began to wait.
    pub parked: usize,
    /// Records set aside.
    pub dead_letters: usize,
}

impl Projector {
    /// A projector that has not read anything yet.
    pub fn new(
        writer: Writer,
        reader: TopicReader,
        default_currency: Currency,
        freshness: Freshness,
        progress: Progress,
    ) -> Self {
        let checkpoints = Checkpoints::default();
        Self {
            writer,
            reader,
            default_currency,
            freshness,
            progress,
            filling: Filling { revisions: Revisions::ours(), changes_kept: CHANGES_KEPT, beside: false },
            checkpoints,
            retried: false,
            served: true,
            look_at: Instant::now(),
            healing: None,
            asked: BTreeSet::new(),
            told_trouble: None,
        }
    }

    /// Keeps so many changes for streams that resume.
    #[must_use]
    pub fn keeping(mut self, changes_kept: u32) -> Self {
        self.filling.changes_kept = changes_kept;
        self
    }

    /// Fills tables that nobody is served from.
    #[must_use]
    pub fn building(mut self) -> Self {
        self.filling.beside = true;
        Self { served: false, ..self }
    }

    /// What it writes into.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// How far the partitions are applied.
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// The next offset of a partition, as far as it is known: behind what was applied, and behind control records.
    pub fn position(&self, partition: i32) -> Option<i64> {
        let known = self.checkpoints.partitions.iter().find(|known| known.partition == partition);
        let read = self.reader.positions().into_iter().find(|(read, _position)| *read == partition);
        known.map(|known| known.next_offset()).max(read.map(|(_partition, position)| position))
    }

    /// Stops reading and closes the database. The right to write goes with it.
    pub async fn close(mut self) {
        self.reader.close();
        if let Err(error) = self.writer.close().await {
            tracing::warn!(error = %ErrorChain(&error), "the database was not closed in good order");
        }
    }

    /// Steps until `shutdown`, finishes the step it is in, and closes the database.
    ///
    /// # Errors
    ///
    /// None: what fails is told, and tried again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        loop {
            let read = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                read = self.read() => read,
            };
            // Not within the select: a batch that was read is applied to its end.
            let step = match read {
                Ok(Read::Records(records)) => self.project(records).await,
                Ok(Read::Nothing) => Ok(Step::Idle),
                Ok(Read::NotReadable) => Ok(Step::Waiting),
                Ok(Read::NotOurTurn) => Ok(Step::Standby),
                Err(error) => Err(error),
            };
            match step {
                Ok(Step::Applied(_) | Step::Idle) => continue,
                Ok(Step::Waiting | Step::Standby) => {}
                Err(store::Error::Superseded) => {
                    tracing::warn!("another node projects now: what this one had read is dropped");
                }
                Err(error) => self.failed(&error),
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(REST) => {}
            }
        }
        self.close().await;
        Ok(())
    }

    /// One bounded unit of work: opens the topic, or reads and applies one batch, or looks after the topic.
    ///
    /// # Errors
    ///
    /// When the database fails. Nothing is lost: the next step reads again from the last checkpoint.
    pub async fn step(&mut self) -> Result<Step, store::Error> {
        match self.read().await? {
            Read::Records(records) => self.project(records).await,
            Read::Nothing => Ok(Step::Idle),
            Read::NotReadable => Ok(Step::Waiting),
            Read::NotOurTurn => Ok(Step::Standby),
        }
    }

    /// Applies records in order: rows and checkpoint together, or nothing of either.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn apply(&mut self, records: Vec<Record>) -> Result<Summary, store::Error> {
        let incoming = Incoming::read_all(records, self.default_currency).await;
        self.apply_read(incoming).await
    }

    /// Applies records that were decoded already, by [`Incoming`].
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn apply_read(&mut self, incoming: Vec<Incoming>) -> Result<Summary, store::Error> {
        let checkpoints = self.checkpoints.after(&incoming, self.reader.topic());
        self.write(incoming, &[], checkpoints, Origin::Topic).await
    }

    /// Applies events that the log told, and keeps where its reading goes on. No checkpoint moves, and no stream is told:
    /// these events have no place in the topic.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn apply_log(&mut self, records: Vec<Record>, after: &str) -> Result<Summary, store::Error> {
        let incoming = Incoming::read_all(records, self.default_currency).await;
        self.write(incoming, &[], self.checkpoints.clone(), Origin::Log { after }).await
    }

    /// Tries the events again that wait for a newer program: this may be it.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn retry_newer(&mut self) -> Result<Summary, store::Error> {
        let mut total = Summary::default();
        let mut after = None;
        loop {
            let orders = {
                let mut transaction = self.writer.begin().await?;
                self.checkpoints = transaction.checkpoints().await?;
                if self.served {
                    report::waiting(transaction.parked_count().await?);
                }
                transaction.orders_waiting_for_newer(after, RETRY_ORDERS_MAX).await?
            };
            let Some(last) = orders.last() else { return Ok(total) };
            after = Some(*last);
            let checkpoints = self.checkpoints.clone();
            let summary = self.write(Vec::new(), &orders, checkpoints, Origin::Topic).await?;
            total.applied += summary.applied;
            total.duplicates += summary.duplicates;
            total.dead_letters += summary.dead_letters;
        }
    }

    async fn project(&mut self, records: Vec<Incoming>) -> Result<Step, store::Error> {
        self.reader.read_ahead(records.len(), self.default_currency);
        let applied = self.apply_read(records).await;
        if applied.is_err() {
            // What was read and not applied is read again, from the last checkpoint.
            self.reader.close();
        }
        applied.map(Step::Applied)
    }

    async fn write(
        &mut self,
        incoming: Vec<Incoming>,
        besides: &[OrderId],
        checkpoints: Checkpoints,
        origin: Origin<'_>,
    ) -> Result<Summary, store::Error> {
        let started = Instant::now();
        let records = incoming.len();
        let mut transaction = self.writer.begin().await?;
        let mut known = transaction.known(&incoming, besides).await?;
        if let Some(of) = &checkpoints.of {
            known.discarded_letters = transaction.discarded_letters(&of.topic, &incoming).await?;
        }
        let mut batch = Batch::new(known, self.default_currency);
        for incoming in incoming {
            batch.take(incoming);
        }
        if !besides.is_empty() {
            batch.continue_after(transaction.next_places(&checkpoints).await?);
        }
        for order_id in besides {
            batch.heal(*order_id);
        }
        batch.streamed = matches!(origin, Origin::Topic);
        let waiting = save::batch(&mut transaction, &batch, &checkpoints, &self.filling).await?;
        if let Origin::Log { after } = origin {
            transaction.keep_log_after(Some(after)).await?;
        }
        transaction.commit().await?;
        self.checkpoints = checkpoints;
        if let Some(waiting) = waiting {
            self.tell_waiting(waiting);
        }
        let summary = Summary::of(&batch);
        self.tell(&batch, summary, records, started.elapsed());
        Ok(summary)
    }

    /// After the commit: readers who wait, and everybody who watches.
    fn tell(&self, batch: &Batch, summary: Summary, records: usize, took: Duration) {
        let changed = batch.applied.iter().map(|applied| applied.recorded.order_id);
        // An order that is stopped ends the wait for it too.
        let waiting = batch.newly_parked().map(|parked| parked.order_id);
        self.freshness.announce(changed.chain(waiting).collect::<BTreeSet<OrderId>>());
        let newest = batch.applied.iter().map(|applied| applied.recorded.occurred_at.timestamp_micros()).max();
        self.progress.stepped(&self.checkpoints, newest);
        if self.served {
            report::batch(batch, summary, records, took);
        }
    }

    fn failed(&mut self, error: &store::Error) {
        let why = ErrorChain(error).to_string();
        tracing::error!(error = why, "a step of the projection failed and is tried again");
        ::metrics::counter!(metrics::STEP_FAILURES).increment(1);
        self.progress.failed(error.reason(), why);
    }
}

/// Where events come from.
#[derive(Debug, Clone, Copy)]
enum Origin<'a> {
    /// Each has a place in a partition.
    Topic,
    /// They have none; the reading goes on after this.
    Log { after: &'a str },
}
