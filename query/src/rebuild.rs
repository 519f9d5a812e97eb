//! A new generation of the read model from offset zero, beside the one that is served: read, verify, promote.
//!
//! It is the ordinary [projector](crate::projector) with another start and other tables, so there is no second way for an event to become
//! a row. Killed at any moment it goes on where its own checkpoints are when it is started again.
//!
//! - **Invariant:** the pointer moves only to a generation that was compared with its source and with an independent fold.
//! - **Invariant:** nobody is served from a generation that is behind what was served before: see [`crate::follow`].

mod back;

mod carrying;

mod error;

mod making;

mod place;

mod regress;

mod source;

mod told;

pub mod works;

use std::time::{Duration, Instant};

use chassis::telemetry::ErrorChain;
use chrono::Utc;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::follow::Projecting;
use crate::generation::{Builder, Generation, Live, Number, Source};
use crate::projector::Step;
use crate::reader::BATCH_RECORDS_MAX;
use crate::store::{self, Generations, Store};
use crate::verify::{self, Report, SourceEvents};
pub use error::Error;
use making::{Making, REST};
pub use told::{Phase, Told};

/// How long the brokers may be away. What is built is kept, so waiting costs nothing.
const AWAY_MAX: Duration = Duration::from_secs(1_800);
/// How long the topic may lack what the log has told, or may stop in the middle of the second reading.
const TOPIC_WAIT_MAX: Duration = Duration::from_secs(120);
/// How often the progress is told.
const TELL_INTERVAL: Duration = Duration::from_millis(500);
/// How often the events are compared again where the source moves while it is read.
const COMPARISONS_MAX: u32 = 5;

/// A generation that was promoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promoted {
    /// Which one.
    pub number: Number,
    /// What its verification counted.
    pub report: Report,
    /// Records read by this process, and how long that took.
    pub read: (u64, Duration),
}

/// What to build, and how.
#[derive(Debug, Clone)]
pub struct Rebuild {
    /// Where the generations are.
    pub generations: Generations,
    /// How projectors are made here.
    pub projecting: Projecting,
    /// From where.
    pub source: Source,
    /// By whom.
    pub builder: Builder,
    /// Told how far it is.
    pub telling: watch::Sender<Option<Told>>,
}

impl Rebuild {
    /// Builds the next generation, or goes on with one that was begun, and promotes it.
    ///
    /// # Errors
    ///
    /// See [`Error`]. The generation that is served stays as it is.
    pub async fn run(&self, shutdown: &CancellationToken) -> Result<Promoted, Error> {
        if self.source == Source::Log && self.projecting.log.is_none() {
            return Err(Error::NoLog);
        }
        if self.source == Source::Topic {
            self.refuse_truncated(shutdown).await?;
        }
        let live = self.generations.live().await?;
        let number = self.place(live).await?;
        let mut making = self.open(number).await?;
        let made = self.make(&mut making, live, shutdown).await;
        let read = (making.read, making.reading);
        making.close().await;
        let report = made?;
        self.prune(Live { number, previous: Some(live.number) }).await;
        Ok(Promoted { number, report, read })
    }

    async fn make(&self, making: &mut Making, live: Live, shutdown: &CancellationToken) -> Result<Report, Error> {
        self.begin(making, live, shutdown).await?;
        match self.source {
            Source::Topic => {}
            Source::Log => self.read_log(making, shutdown).await?,
        }
        self.read_topic(making, shutdown).await?;
        self.tell(making, Phase::Indexing);
        self.make_up(making).await?;
        let served = self.generations.open(live.number).await?.store;
        let carried = self.carry_over(making, &served).await;
        let report = match carried {
            Ok(()) => self.compared(making, &served, shutdown).await,
            Err(error) => Err(error),
        };
        served.close().await;
        if let Err(Error::Verify(difference)) = &report {
            let told = serde_json::json!({ "difference": ErrorChain(difference).to_string() }).to_string();
            let mut transaction = making.projector.writer().begin().await?;
            transaction.condemn_generation(&told).await?;
            transaction.commit().await?;
        }
        let report = report?;
        self.read_topic(making, shutdown).await?;
        let now_micros = Utc::now().timestamp_micros();
        let told = serde_json::to_string(&report).map_err(store::Error::from)?;
        let mut transaction = making.projector.writer().begin().await?;
        transaction.complete_generation(now_micros, &told).await?;
        transaction.commit().await?;
        self.promote(making, live, now_micros).await?;
        making.note(making.built.total, making.built.total);
        self.tell(making, Phase::Promoted);
        Ok(report)
    }

    /// Moves the pointer. What counts is where it is in the end: a lost answer is asked for again.
    async fn promote(&self, making: &mut Making, live: Live, now_micros: i64) -> Result<(), Error> {
        let writer = making.projector.writer();
        match self.generations.promote(writer, live.number, making.number, now_micros).await {
            Ok(()) => Ok(()),
            Err(store::Error::Superseded) => Err(Error::Overtaken),
            Err(error) => match self.generations.live().await {
                Ok(now) if now.number == making.number => Ok(()),
                _ => Err(error.into()),
            },
        }
    }

    /// Says what the tables are going to be.
    async fn begin(&self, making: &mut Making, live: Live, shutdown: &CancellationToken) -> Result<(), Error> {
        making.wait_for_turn(shutdown).await?;
        // Whoever had it until now may have promoted it: then it is not ours to write.
        if self.generations.live().await? != live {
            return Err(Error::Overtaken);
        }
        let mut transaction = making.projector.writer().begin().await?;
        if transaction.generation().await?.is_none() {
            let now_micros = Utc::now().timestamp_micros();
            let begun = Generation::begun(making.number, self.source, self.builder, now_micros);
            transaction.begin_generation(&begun).await?;
            transaction.defer_bulk().await?;
        }
        transaction.settle_currency(self.projecting.default_currency).await?;
        Ok(transaction.commit().await?)
    }

    async fn make_up(&self, making: &mut Making) -> Result<(), Error> {
        making.projector.writer().sort_on_disk().await?;
        let mut transaction = making.projector.writer().begin().await?;
        transaction.make_up().await?;
        Ok(transaction.commit().await?)
    }

    /// Compares until source and tables agree: a log grows while it is read, and what it told first may not have come over
    /// the topic yet.
    async fn compared(
        &self,
        making: &mut Making,
        served: &Store,
        shutdown: &CancellationToken,
    ) -> Result<Report, Error> {
        let mut comparisons = 0;
        loop {
            self.read_topic(making, shutdown).await?;
            self.tell(making, Phase::Verifying);
            let mut events = SourceEvents::of(&making.store).await?;
            self.read_again(making, &mut events, shutdown).await?;
            if self.source == Source::Log {
                self.wait_for_topic(making, &events, shutdown).await?;
                self.read_topic_again(making, &mut events, shutdown).await?;
            }
            comparisons += 1;
            match verify::verify(&making.store, &events, self.projecting.default_currency).await {
                Ok(report) => {
                    self.refuse_regress(making, served, shutdown).await?;
                    return Ok(report);
                }
                Err(error @ verify::Error::Differs { .. })
                    if self.source == Source::Log && comparisons < COMPARISONS_MAX =>
                {
                    tracing::info!(error = %ErrorChain(&error), "the log moved while it was compared: once more");
                }
                // A database that does not answer says nothing against the generation.
                Err(verify::Error::Store(error)) if !error.is_damage() => return Err(error.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what the topic has, until hardly anything is left.
    async fn read_topic(&self, making: &mut Making, shutdown: &CancellationToken) -> Result<(), Error> {
        let started = Instant::now();
        let mut away_since: Option<Instant> = None;
        let mut ends = self.ends(shutdown).await?;
        loop {
            stopping(shutdown)?;
            match making.projector.step().await {
                Ok(Step::Applied(summary)) => {
                    let seen = summary.applied + summary.parked + summary.dead_letters;
                    making.read += u64::try_from(seen).unwrap_or(0) + summary.duplicates;
                    away_since = None;
                }
                // A reader whose brokers are away idles, and goes on by itself.
                Ok(Step::Idle) if making.progress.trouble().is_none() => away_since = None,
                Ok(step @ (Step::Idle | Step::Waiting)) => {
                    let since = *away_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > AWAY_MAX {
                        return Err(Error::Topic(making.progress.topic_problem().unwrap_or_default()));
                    }
                    if step == Step::Waiting {
                        sleep(REST).await;
                    }
                }
                Ok(Step::Standby) | Err(store::Error::Superseded) => return Err(Error::Busy { number: making.number }),
                Err(error) => return Err(error.into()),
            }
            let (done, total) = making.place_in(&ends);
            making.note(done, total);
            self.tell_now_and_then(making).await?;
            if done < total {
                continue;
            }
            ends = self.ends(shutdown).await?;
            let (done, total) = making.place_in(&ends);
            if total - done < i64::try_from(BATCH_RECORDS_MAX).unwrap_or(i64::MAX) {
                making.reading += started.elapsed();
                return Ok(());
            }
        }
    }

    async fn tell_now_and_then(&self, making: &mut Making) -> Result<(), Error> {
        let ((at, before), done) = (making.told, making.built.done);
        if at.elapsed() < TELL_INTERVAL {
            return Ok(());
        }
        let passed = u64::try_from(done - before).unwrap_or(0);
        making.rate_per_s = passed * 1_000 / u64::try_from(at.elapsed().as_millis()).unwrap_or(1).max(1);
        making.told = (Instant::now(), done);
        let mut transaction = making.projector.writer().begin().await?;
        transaction.tell_built(making.built).await?;
        transaction.commit().await?;
        self.tell(making, Phase::Reading);
        Ok(())
    }
}

fn stopping(shutdown: &CancellationToken) -> Result<(), Error> {
    if shutdown.is_cancelled() { Err(Error::Stopped) } else { Ok(()) }
}
