//! The rebuilds of a running service: one at a time, asked for by operators, or by a program whose projections are newer
//! than the tables.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chassis::telemetry::ErrorChain;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Error, Rebuild, Told};
use crate::follow::Projecting;
use crate::generation::{Age, Builder, Number, Source};
use crate::metrics::{REBUILD_FAILURES, REBUILDING};
use crate::store::{self, Generations};

/// How long to rest after a rebuild that failed for a reason that may pass; each time twice as long, up to the second.
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// The next generation.
    Rebuild(Source),
    /// The generation before.
    RollBack,
}

/// What the works are doing, and how the last job ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// The job at hand.
    pub running: Option<Job>,
    /// How far it is.
    pub told: Option<Told>,
    /// The generation that the last job promoted, or why it did not.
    pub last: Option<Result<Number, String>>,
}

/// Where jobs are asked for. Clones are of the same works.
#[derive(Debug, Clone)]
pub struct Office {
    /// Where the generations are.
    pub generations: Generations,
    jobs: mpsc::Sender<Job>,
    status: Arc<Mutex<Status>>,
    told: watch::Receiver<Option<Told>>,
    stop: Arc<Mutex<CancellationToken>>,
}

impl Office {
    /// Asks for a job; false when there is one at hand.
    pub fn ask(&self, job: Job) -> bool {
        let mut status = lock(&self.status);
        // Full, or at its end with the process.
        if status.running.is_some() || self.jobs.try_send(job).is_err() {
            return false;
        }
        *status = Status { running: Some(job), ..Status::default() };
        true
    }

    /// What is being done.
    pub fn status(&self) -> Status {
        let mut status = lock(&self.status).clone();
        status.told = *self.told.borrow();
        status
    }

    /// Stops the job at hand. What is built is kept.
    pub fn stop(&self) {
        lock(&self.stop).cancel();
    }
}

/// Does the jobs.
#[derive(Debug)]
pub struct Works {
    generations: Generations,
    projecting: Projecting,
    office: Office,
    jobs: mpsc::Receiver<Job>,
    telling: watch::Sender<Option<Told>>,
}

impl Works {
    /// Works on these generations, and where to ask for jobs.
    pub fn new(generations: Generations, projecting: Projecting) -> (Self, Office) {
        let (asking, jobs) = mpsc::channel(1);
        let (telling, told) = watch::channel(None);
        let office = Office {
            generations: generations.clone(),
            jobs: asking,
            status: Arc::default(),
            told,
            stop: Arc::default(),
        };
        (Self { generations, projecting, office: office.clone(), jobs, telling }, office)
    }

    /// Works until `shutdown`. What a restart finds begun is gone on with, and what failed for a reason that may pass is
    /// tried again.
    ///
    /// # Errors
    ///
    /// None: what fails is told, and tried again when it is asked for.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let (mut due, mut rest) = (Some(Instant::now()), RETRY_MIN);
        loop {
            let job = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                job = self.jobs.recv() => job,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = self.ask_for_what_is_due().await.then(|| Instant::now() + rest);
                    continue;
                }
            };
            // The office keeps a sender.
            let Some(job) = job else { return Ok(()) };
            let stop = shutdown.child_token();
            *lock(&self.office.stop) = stop.clone();
            metrics::gauge!(REBUILDING).set(1.0);
            let ended = self.work(job, &stop).await;
            metrics::gauge!(REBUILDING).set(0.0);
            (due, rest) = match &ended {
                Err(error) if may_pass(error) => (Some(Instant::now() + rest), RETRY_MAX.min(rest * 2)),
                _ => (None, RETRY_MIN),
            };
            tell(&ended);
            let last = ended.map_err(|error| ErrorChain(&error).to_string());
            *lock(&self.office.status) = Status { last: Some(last), ..Status::default() };
        }
    }

    /// Whether that could not be told, and is to be tried again.
    async fn ask_for_what_is_due(&self) -> bool {
        match self.begun().await {
            Ok(Some(job)) => {
                self.office.ask(job);
                false
            }
            Ok(None) => false,
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "whether a rebuild is due cannot be told");
                true
            }
        }
    }

    /// The rebuild that is due without anybody asking: one that a service began, or one for newer projections.
    async fn begun(&self) -> Result<Option<Job>, store::Error> {
        let live = self.generations.live().await?.number;
        let begun = self.generations.list().await?.into_iter().find(|generation| {
            generation.number > live && generation.is_begun() && generation.builder == Builder::Service
        });
        if let Some(begun) = begun {
            return Ok(Some(Job::Rebuild(begun.source)));
        }
        let Some(generation) = self.generations.look(live).await? else { return Ok(None) };
        if generation.revisions.age() != Age::Older {
            return Ok(None);
        }
        tracing::warn!(
            served = %generation.revisions,
            "the projections of this program are newer than the tables: the read model is built anew beside them"
        );
        Ok(Some(Job::Rebuild(Source::Topic)))
    }

    async fn work(&self, job: Job, stop: &CancellationToken) -> Result<Number, Error> {
        let rebuild = |source| Rebuild {
            generations: self.generations.clone(),
            projecting: self.projecting.clone(),
            source,
            builder: Builder::Service,
            telling: self.telling.clone(),
        };
        match job {
            Job::RollBack => rebuild(Source::Topic).roll_back(stop).await,
            Job::Rebuild(source) => match rebuild(source).run(stop).await {
                // A truncated topic that nobody chose is no reason to stay with old tables.
                Err(Error::Truncated { .. }) if self.projecting.log.is_some() && source == Source::Topic => {
                    tracing::warn!("the beginning of the topic is gone: the event log is read instead");
                    Ok(rebuild(Source::Log).run(stop).await?.number)
                }
                ended => Ok(ended?.number),
            },
        }
    }
}

/// Whether it is worth to try again without anybody asking.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Busy { .. } | Error::Overtaken | Error::Topic(_) | Error::Log(_) => true,
        Error::Store(error) => !error.is_damage(),
        _ => false,
    }
}

fn tell(ended: &Result<Number, Error>) {
    match ended {
        Ok(_) | Err(Error::Stopped) => {}
        Err(error @ Error::Busy { .. }) => tracing::info!(%error, "a rebuild is left to another process"),
        Err(error) => {
            metrics::counter!(REBUILD_FAILURES).increment(1);
            tracing::error!(error = %ErrorChain(error), "a rebuild did not come to its end");
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every value is assigned whole.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
