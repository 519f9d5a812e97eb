//! The relay: publishes the outbox to the topic, in order, at least once.
//!
//! One relay publishes at a time, under a [`lease`] with a fencing epoch. It reads the outbox by snapshot difference
//! ([`progress`]), sends one batch at a time and saves its progress only after every acknowledgement (rules R6). Whatever
//! goes wrong, it drops its producer and starts again from the saved progress: repeats are harmless, holes never occur.
//!
//! [`Relay::step`] does one bounded unit and names its outcome; [`Relay::run`] loops on hint or timer; tests drive `step`.
//! A step that is silent for too long is given up, whatever it waits for: each peer may be gone without a word ([`status`]).

mod ahead;
mod housekeeping;
pub mod lease;
pub mod log;
mod moved;
pub(crate) mod progress;
pub mod reconcile;
pub mod status;
mod term;
pub(crate) mod topic;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use chassis::kafka::{Brokers, TopicSpec};
pub(crate) use chassis::postgres::disconnect;
use chassis::postgres::{self, in_time};
use chassis::telemetry::ErrorChain;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

pub use ahead::Ahead;
use lease::Lease;
use status::Status;
pub(crate) use term::Term;

use crate::metrics::{RELAY_FAILURES, RELAY_OWNER};

/// So many events of a batch make nobody wait. With more, they come so fast that what a batch costs is worth sharing.
const GATHER_EVENTS_FREE: usize = 64;
/// Then the next batch gathers for so long for each event of the last one beyond those,
const GATHER_PER_EVENT: Duration = Duration::from_micros(60);
/// and for no longer than this.
const GATHER_MAX: Duration = Duration::from_millis(10);

/// How long a new session of the relay may take to be set up.
const SET_UP_DEADLINE: Duration = Duration::from_secs(2);

/// While the process drains: how long one step may take, all of them together, and giving the lease back. What is not published
/// then stays in the outbox.
const DRAIN_STEP: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(5);
const RELEASE: Duration = Duration::from_millis(500);

/// Why a step of the relay failed. It is tried again from the saved progress.
#[derive(Debug, Error)]
pub enum Error {
    /// PostgreSQL.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// Kafka.
    #[error("the broker failed")]
    Kafka(#[from] chassis::kafka::Error),
    /// The topic is missing or not what it must be.
    #[error("the topic cannot be used")]
    Topic(#[from] chassis::kafka::topic::Unfit),
    /// The lease is somebody else's now; whatever was in flight may be published twice, which is harmless.
    #[error("the lease is lost")]
    LeaseLost,
    /// Something did not answer; whatever was in flight may be published twice, which is harmless.
    #[error("nothing was heard for {silent_ms} ms")]
    Silent {
        /// For how long.
        silent_ms: u128,
    },
    /// Publishing would tell a second history of orders.
    #[error("{0}; nothing is published")]
    Ahead(Ahead),
    /// Rows came from another database server while the relay was in office.
    #[error("the outbox has transaction ids that this database server has not given yet")]
    Moved,
    /// Another topic of the same name took the place of the one that was being filled.
    #[error("the topic was replaced while it was being filled")]
    TopicReplaced,
}

/// How the relay is sized.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The most events of one batch; the next one is sent after all its acknowledgements.
    pub batch_events_max: usize,
    /// How long to wait for a batch's acknowledgements before the producer is given up.
    pub acks_timeout: Duration,
    /// How often to look for events without a hint.
    pub poll: Duration,
    /// How often an idle relay compares the topic's end with what was acknowledged.
    pub topic_check: Duration,
    /// For how long published outbox partitions are kept, in seconds.
    pub outbox_keep_s: u32,
}

/// Everything that a relay needs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How to reach PostgreSQL as the service's own role.
    pub connect: PgConnectOptions,
    /// How to reach Kafka.
    pub brokers: Brokers,
    /// Where to.
    pub topic: TopicSpec,
    /// Sizes and deadlines.
    pub limits: Limits,
    /// A name of this relay that no other has.
    pub owner: String,
    /// Somebody committed: there may be something to publish.
    pub committed: Arc<Notify>,
    /// What the relay tells about itself.
    pub status: Status,
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// So many events were published and acknowledged.
    Published(usize),
    /// There is nothing to publish.
    Idle,
    /// Another relay publishes.
    NotOwner,
    /// The topic is ahead of the log: nothing may be published.
    Refused,
}

/// A relay, in office or not.
#[derive(Debug)]
pub struct Relay {
    setup: Setup,
    connection: Option<PgConnection>,
    term: Option<Term>,
}

impl Relay {
    /// A relay that has not started.
    pub fn new(setup: Setup) -> Self {
        Self { setup, connection: None, term: None }
    }

    /// One bounded unit: takes office if nobody has it, else publishes at most one batch.
    ///
    /// # Errors
    ///
    /// Whatever failed; the producer is dropped, and the next step starts again from the saved progress.
    pub async fn step(&mut self) -> Result<Step, Error> {
        let status = self.setup.status.clone();
        status.alive();
        let outcome = tokio::select! {
            outcome = self.try_step() => outcome,
            silent = status.silent() => Err(silent),
        };
        match &outcome {
            Ok(_) => status.works(),
            Err(error) => {
                self.abandon();
                status.failed(error);
                metrics::counter!(RELAY_FAILURES).increment(1);
            }
        }
        status.in_office(self.term.as_ref().map(Term::trusted_until));
        metrics::gauge!(RELAY_OWNER).set(if self.term.is_some() { 1.0 } else { 0.0 });
        if matches!(outcome, Ok(Step::NotOwner)) {
            // Another process knows.
            status.ahead(None);
        }
        outcome
    }

    /// Takes office before anybody waits for it, so that the first event finds everything connected. What fails is tried again
    /// by [`Relay::run`].
    pub async fn warm(&mut self, within: Duration) {
        if timeout(within, self.step()).await.is_err() {
            self.abandon();
        }
    }

    async fn try_step(&mut self) -> Result<Step, Error> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(connect(&self.setup.connect).await?),
        };
        let term = match &mut self.term {
            Some(term) => term,
            None => match Lease::acquire(connection, &self.setup.owner, false).await? {
                Some(lease) => self.term.insert(Term::begin(&self.setup, connection, lease).await?),
                None => return Ok(Step::NotOwner),
            },
        };
        if !term.keep(connection).await? {
            if let Some(term) = self.term.take() {
                term.end(connection).await?;
            }
            return Ok(Step::NotOwner);
        }
        term.publish_next(connection).await
    }

    /// Steps until `shutdown`, then publishes what is left and hands the lease over.
    ///
    /// # Errors
    ///
    /// None: a step that fails is tried again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), std::convert::Infallible> {
        const BACKOFF_MAX: Duration = Duration::from_secs(2);
        let mut backoff = self.setup.limits.poll;
        while !shutdown.is_cancelled() {
            let outcome = tokio::select! {
                outcome = self.step() => outcome,
                () = drain_step(&shutdown) => {
                    self.abandon();
                    break;
                }
            };
            let pause = match outcome {
                Ok(Step::Published(events)) => {
                    backoff = self.setup.limits.poll;
                    let rest = self.gathering(events);
                    if !rest.is_zero() {
                        tokio::time::sleep(rest).await;
                    }
                    continue;
                }
                Ok(Step::Idle | Step::Refused) => {
                    backoff = self.setup.limits.poll;
                    self.setup.limits.poll
                }
                Ok(Step::NotOwner) => lease::LEASE / 6,
                Err(_reported) => {
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                    backoff
                }
            };
            let hint = async {
                match self.term {
                    Some(_) => self.setup.committed.notified().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = hint => {}
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.resign().await;
        Ok(())
    }

    /// How long to rest after a batch, so that more comes together while events come fast: what a batch costs the database
    /// and the broker is then shared by more of them. A backlog is not kept waiting.
    fn gathering(&self, events: usize) -> Duration {
        if events >= self.setup.limits.batch_events_max {
            return Duration::ZERO;
        }
        let beyond = u32::try_from(events.saturating_sub(GATHER_EVENTS_FREE)).unwrap_or(u32::MAX);
        GATHER_PER_EVENT.saturating_mul(beyond).min(GATHER_MAX)
    }

    /// Publishes what is left as long as everything answers, and gives the lease back, so that another relay can take over at
    /// once. What is not published stays in the outbox.
    async fn resign(mut self) {
        let end = Instant::now() + DRAIN;
        while self.term.is_some() && Instant::now() < end {
            match timeout_at(end.min(Instant::now() + DRAIN_STEP), self.step()).await {
                Ok(Ok(Step::Published(_))) => {}
                Ok(_nothing_more) => break,
                Err(_elapsed) => {
                    tracing::warn!("draining does not wait for what does not answer; the rest stays in the outbox");
                    self.abandon();
                }
            }
        }
        match timeout(RELEASE, self.release()).await {
            Ok(Ok(())) => tracing::info!(owner = self.setup.owner, "the relay leaves office"),
            Ok(Err(error)) => {
                tracing::warn!(error = %ErrorChain(&error), "the lease could not be given back; it runs out by itself");
            }
            Err(_elapsed) => tracing::warn!("the database does not answer; the lease runs out by itself"),
        }
    }

    /// Gives the lease back, on a session of its own when the relay's was given up.
    async fn release(&mut self) -> Result<(), Error> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => postgres::connect(&self.setup.connect).await?,
        };
        lease::release(&mut connection, &self.setup.owner).await?;
        Ok(())
    }

    /// Forgets everything that is not saved.
    fn abandon(&mut self) {
        self.term = None;
        self.connection = None;
    }
}

/// Ends when the process has been draining for longer than one step may take then.
async fn drain_step(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(DRAIN_STEP).await;
}

/// A session for the relay: its progress may be lost in a crash (that only repeats), and its plans follow the values.
pub(crate) async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = postgres::connect(options).await?;
    // A backlog is read at leisure: no statement timeout as tight as a command's. Bitmap and sequential scans lose
    // against the indexes here, whatever stale statistics say.
    let set_up = sqlx::raw_sql(
        "set synchronous_commit = off; set plan_cache_mode = force_custom_plan; set enable_seqscan = off;
         set statement_timeout = '60s'",
    );
    in_time(SET_UP_DEADLINE, set_up.execute(&mut connection)).await?;
    Ok(connection)
}

/// Takes the lease for a chore, asking whoever has it to hand over, and runs up to `deadline` for it.
///
/// # Errors
///
/// [`Error::LeaseLost`] when nobody handed over in time, [`Error::Ahead`].
pub(crate) async fn take_office(
    setup: &Setup,
    connection: &mut PgConnection,
    deadline: Duration,
) -> Result<Term, Error> {
    let give_up = Instant::now() + deadline;
    while Instant::now() < give_up {
        if let Some(lease) = Lease::acquire(connection, &setup.owner, true).await? {
            let term = Term::begin(setup, connection, lease).await?;
            let Some(ahead) = term.ahead().cloned() else { return Ok(term) };
            term.end(connection).await?;
            return Err(Error::Ahead(ahead));
        }
        tokio::time::sleep(lease::HEARTBEAT / 4).await;
    }
    Err(Error::LeaseLost)
}
