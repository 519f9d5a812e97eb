//! THE write path: group commit, by construction.
//!
//! A command goes to a lane by the hash of its order. A lane takes whatever is queued, never waiting to fill a batch, and
//! runs one transaction for all of it ([`batch`]); while that transaction flushes, the next batch gathers. Idle, batches
//! have the size of one and the latency of a plain transaction; loaded, they grow by themselves.
//!
//! - **Invariant:** a caller is told of success only when the commit is proven, by the server's word on the transaction or by
//!   what it left ([`fate`], rules R1).
//! - **Invariant:** what runs against the database runs in the lane's own task on the lane's own connection. A client
//!   that disconnects drops a receiver, nothing else (rules R2).
//! - **Invariant:** a lane's queue is bounded; a full one refuses (503, not executed) instead of growing.
//! - **Invariant:** a caller has its answer at its deadline, whatever the database does; when a transaction may contain its
//!   command just then, that transaction's deadline later ([`place`]).

mod batch;
mod fate;
mod lane;
mod place;
mod pressure;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::order::{Order, OrderCommand, Rejection};
use domain::{Currency, Metadata, OrderId, Version};
use sqlx::postgres::PgConnectOptions;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::idempotency::{Key, Reply};
pub use lane::Lane;
use place::Place;
use pressure::Pressure;
pub use pressure::Room;

/// How the executor is sized.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Lanes, each with a connection of its own. Two are best on two cores (docs/DESIGN.md).
    pub lanes: usize,
    /// The most commands that wait for one lane.
    pub queue_commands_max: usize,
    /// The most commands of one transaction.
    pub batch_commands_max: usize,
    /// How long a command may wait and be tried before it is refused.
    pub command_deadline: Duration,
    /// How long one transaction may take before its connection is given up; shorter than `command_deadline`, so that there
    /// is time for another try.
    pub flush_deadline: Duration,
    /// How long the end of a transaction whose answer was lost is looked for.
    pub resolve_deadline: Duration,
}

/// A command on its way, with everything that its transaction needs.
#[derive(Debug)]
pub struct Request {
    /// The order it is about; a new id for a new order.
    pub order_id: OrderId,
    /// What is asked.
    pub command: OrderCommand,
    /// The versions that the caller accepts (`If-Match`); without any, every version is accepted.
    pub expected: Vec<Version>,
    /// The client's name for this request.
    pub key: Option<Key>,
    /// Who and what caused it.
    pub metadata: Metadata,
    /// The time of the events that it causes.
    pub occurred_at: DateTime<Utc>,
}

/// How the domain answered.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Done; the events are durable.
    Accepted {
        /// Which order.
        order_id: OrderId,
        /// Its version now: the reader's token for reading its own writes.
        version: Version,
        /// Its state now.
        state: Order,
        /// True for a new order.
        created: bool,
    },
    /// Refused by a rule; nothing has changed.
    Rejected(Rejection),
    /// The caller has seen another version; nothing has changed.
    VersionMismatch {
        /// What the caller expected: one of these.
        expected: Vec<Version>,
        /// What it is.
        current: Version,
    },
}

/// What a caller gets.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer.
    pub reply: Reply,
    /// True when it was given before, under the same key.
    pub replayed: bool,
}

/// Why a command got no answer from the domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The lane's queue is full. Not executed.
    #[error("too many commands are waiting")]
    Overloaded,
    /// The service is stopping. Not executed.
    #[error("the service is stopping")]
    Stopping,
    /// Another request with the same key is still being executed. This one is not.
    #[error("another request with this key is in progress")]
    KeyBusy,
    /// The key belongs to another request. Not executed.
    #[error("the key belongs to another request")]
    KeyReused,
    /// It waited for too long. Not executed.
    #[error("the command could not be executed in time")]
    TimedOut,
    /// The events would be larger than may be published. Not executed.
    #[error("the event would be too large")]
    TooLarge,
    /// The database cannot store a value that the request holds (SQLSTATE class 22). Not executed.
    #[error("the database cannot store a value of the request")]
    Unstorable,
    /// The database refuses. Not executed.
    #[error("the database refused the transaction")]
    Database,
    /// The answer cannot be rendered. Not executed: what cannot be answered is not written.
    #[error("the answer cannot be rendered")]
    Unrenderable,
    /// It may or may not have been executed: the commit's answer was lost and could not be found out in time.
    #[error("the outcome of the transaction is unknown")]
    OutcomeUnknown,
}

/// Turns an outcome into the answer that is stored for its key and sent.
///
/// It runs before anything is written, and its failure refuses the command.
pub type Render = fn(&Outcome) -> Result<Reply, Unrenderable>;

/// An outcome that no answer can tell.
#[derive(Debug, thiserror::Error)]
#[error("the outcome of a command cannot be rendered")]
pub struct Unrenderable(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Unrenderable {
    /// Says why.
    pub fn because(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

/// A command in a lane's queue.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: Request,
    pub(crate) deadline: Instant,
    pub(crate) place: Place,
    pub(crate) answer: oneshot::Sender<Result<Answer, Failure>>,
}

/// The way into the lanes: a cheap handle.
#[derive(Debug, Clone)]
pub struct Executor {
    lanes: Arc<[mpsc::Sender<Pending>]>,
    command_deadline: Duration,
    flush_deadline: Duration,
    pressure: Pressure,
    /// Keyed anew in each process, so that nobody can aim at one lane.
    hasher: std::collections::hash_map::RandomState,
}

/// Everything that the lanes share.
#[derive(Debug, Clone)]
pub struct Setup {
    /// How to reach PostgreSQL as the service's own role.
    pub connect: PgConnectOptions,
    /// Sizes and deadlines.
    pub limits: Limits,
    /// Turns outcomes into answers.
    pub render: Render,
    /// Told after every commit that there is something to publish.
    pub committed: Arc<Notify>,
    /// The currency of stored messages that name none.
    pub default_currency: Currency,
}

impl Executor {
    /// An executor and its lanes, each to be run as a task. Dropping every handle ends them after what is queued.
    pub fn new(setup: &Setup) -> (Self, Vec<Lane>) {
        let pressure = Pressure::default();
        let (senders, lanes) = (0..setup.limits.lanes.max(1))
            .map(|_lane| {
                let (sender, receiver) = mpsc::channel(setup.limits.queue_commands_max);
                (sender, Lane::new(setup.clone(), receiver, pressure.clone()))
            })
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let executor = Self {
            lanes: senders.into(),
            command_deadline: setup.limits.command_deadline,
            flush_deadline: setup.limits.flush_deadline,
            pressure,
            hasher: std::collections::hash_map::RandomState::new(),
        };
        (executor, lanes)
    }

    /// Executes a command and answers when its transaction is durable, or when it is certain that it is not.
    ///
    /// Dropping this future does not stop the command.
    ///
    /// # Errors
    ///
    /// Every [`Failure`] but [`Failure::OutcomeUnknown`] means that nothing was executed.
    pub async fn execute(&self, request: Request) -> Result<Answer, Failure> {
        let (sender, mut receiver) = oneshot::channel();
        let lane = self.lane_of(request.order_id);
        let deadline = Instant::now() + self.command_deadline;
        let place = Place::waiting(Failure::TimedOut);
        let pending = Pending { request, deadline, place: place.clone(), answer: sender };
        lane.try_send(pending).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Failure::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Failure::Stopping,
        })?;
        // A lane that dies mid-flight takes the answer with it; what it did cannot be told from here.
        if let Ok(answer) = timeout_at(deadline, &mut receiver).await {
            return answer.unwrap_or(Err(Failure::OutcomeUnknown));
        }
        if let Some(failure) = place.leave() {
            return Err(failure);
        }
        // It is being executed: better an answer that is late by one transaction than one that says nothing.
        let last = timeout_at(deadline + self.flush_deadline, receiver).await;
        last.ok().and_then(Result::ok).unwrap_or(Err(Failure::OutcomeUnknown))
    }

    /// How many commands wait, over all lanes.
    pub fn queued(&self) -> usize {
        self.lanes.iter().map(|lane| lane.max_capacity() - lane.capacity()).sum()
    }

    /// Tells whether commands find room, without a handle that would keep the lanes running.
    pub fn room(&self) -> Room {
        Room { lanes: self.lanes.iter().map(mpsc::Sender::downgrade).collect(), pressure: self.pressure.clone() }
    }

    fn lane_of(&self, order_id: OrderId) -> &mpsc::Sender<Pending> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(order_id.0.as_bytes());
        let lanes = self.lanes.len() as u64;
        let lane = usize::try_from(hasher.finish() % lanes).unwrap_or_default();
        &self.lanes[lane]
    }
}
