//! A lane: a queue, a connection, and the loop that turns one into transactions on the other.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use chassis::postgres::{self, is_data_exception, is_transient};
use chassis::telemetry::ErrorChain;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::batch::{self, Flight, InDoubt, Session, Verdict};
use super::fate::{self, Alive, Fate};
use super::pressure::Pressure;
use super::{Failure, Pending, Setup};
use crate::metrics::{COMMANDS_REQUEUED, FLUSH_SECONDS, TRANSACTIONS_FAILED};
use crate::store;

/// How often a transaction is tried that fails for reasons known to pass.
const ATTEMPTS_MAX: u32 = 4;
/// The first pause between two tries; it doubles.
const BACKOFF: Duration = Duration::from_millis(10);
/// How soon commands whose key or order was in use are tried again when nothing else arrives.
const BUSY_PAUSE: Duration = Duration::from_millis(2);

/// One lane of the executor.
#[derive(Debug)]
pub struct Lane {
    setup: Setup,
    queue: mpsc::Receiver<Pending>,
    pressure: Pressure,
    session: Option<Session>,
    /// Commands whose key or order was in use, oldest first; they come before what is queued.
    busy: VecDeque<Pending>,
}

impl Lane {
    pub(super) fn new(setup: Setup, queue: mpsc::Receiver<Pending>, pressure: Pressure) -> Self {
        Self { setup, queue, pressure, session: None, busy: VecDeque::new() }
    }

    /// Connects and plans the statements, so that the first command need not wait for it. What fails is tried again with the
    /// first command.
    pub async fn warm(&mut self) {
        let warmed = async {
            let mut session = connect(&self.setup).await?;
            batch::rehearse(&mut session, &self.setup).await?;
            Ok::<_, store::Error>(session)
        };
        match timeout(self.setup.limits.flush_deadline, warmed).await {
            Ok(Ok(session)) => self.session = Some(session),
            Ok(Err(error)) => tracing::warn!(error = %ErrorChain(&error), "a lane cannot connect now"),
            Err(_elapsed) => tracing::warn!("a lane cannot connect in time"),
        }
    }

    /// Runs until every handle of the executor is gone and everything that was queued is answered.
    ///
    /// # Errors
    ///
    /// None: a database that fails is a matter of the commands that meet it.
    pub async fn run(mut self) -> Result<(), Infallible> {
        while let Some(batch) = self.gather().await {
            self.execute(batch).await;
        }
        if let Some(session) = self.session.take() {
            postgres::disconnect(session.connection).await;
        }
        Ok(())
    }

    /// Whatever there is, at once; nothing when the lane is over.
    async fn gather(&mut self) -> Option<Vec<Pending>> {
        let batch_max = self.setup.limits.batch_commands_max;
        loop {
            let mut batch: Vec<Pending> = self.busy.drain(..self.busy.len().min(batch_max)).collect();
            let room = batch_max - batch.len();
            if batch.is_empty() {
                if self.queue.recv_many(&mut batch, room).await == 0 {
                    return None;
                }
            } else {
                // Give whoever holds the key or the order a moment, unless there is other work anyway.
                let _elapsed = timeout(BUSY_PAUSE, self.queue.recv_many(&mut batch, room)).await;
            }
            let batch = in_time(batch);
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Executes a batch to the end: every command is answered or waits in `busy`.
    ///
    /// A batch that goes on failing although the database answers is halved, so that one bad member cannot sink the
    /// others.
    async fn execute(&mut self, batch: Vec<Pending>) {
        let mut batches = vec![batch];
        while let Some(batch) = batches.pop() {
            let mut batch = in_time(batch);
            if batch.is_empty() {
                continue;
            }
            match self.attempt(&batch).await {
                Ok(verdicts) => self.settle(batch, verdicts),
                Err(Attempt::Failed(failure)) if batch.len() == 1 => fail(batch, failure),
                Err(Attempt::Failed(_)) => {
                    let second_half = batch.split_off(batch.len() / 2);
                    batches.push(second_half);
                    batches.push(batch);
                }
                Err(Attempt::Hopeless(failure)) => fail(batch, failure),
            }
        }
    }

    /// Tries a batch's transaction until it is committed, certainly not going to be, or in doubt for good.
    ///
    /// It is not tried again when every caller's time is up.
    async fn attempt(&mut self, batch: &[Pending]) -> Result<Vec<Verdict>, Attempt> {
        let last_deadline = batch.iter().map(|pending| pending.deadline).max().unwrap_or_else(Instant::now);
        let mut backoff = BACKOFF;
        let mut reached = false;
        for attempt in 1..=ATTEMPTS_MAX {
            let mut flight = Flight::default();
            let started = Instant::now();
            let flushed = timeout(self.setup.limits.flush_deadline, self.flush(batch, &mut flight)).await;
            reached = flight.reached;
            metrics::histogram!(FLUSH_SECONDS).record(started.elapsed().as_secs_f64());
            let permanent = match flushed {
                Ok(Ok(verdicts)) => {
                    self.pressure.works();
                    return Ok(verdicts);
                }
                Ok(Err(error)) => {
                    self.pressure.failed(&error);
                    tracing::warn!(error = %ErrorChain(&error), attempt, commands = batch.len(), "a transaction failed");
                    permanent(&error)
                }
                Err(_elapsed) => {
                    tracing::warn!(
                        attempt,
                        commands = batch.len(),
                        "a transaction took too long; its connection is given up"
                    );
                    None
                }
            };
            metrics::counter!(TRANSACTIONS_FAILED).increment(1);
            if let Some(in_doubt) = flight.in_doubt {
                match self.resolve(&in_doubt, last_deadline).await {
                    Fate::Committed => return Ok(in_doubt.verdicts),
                    Fate::Aborted => batch.iter().for_each(|pending| pending.place.not_executed()),
                    Fate::Unknown => return Err(Attempt::Hopeless(Failure::OutcomeUnknown)),
                }
            }
            if let Some(failure) = permanent {
                return Err(Attempt::Failed(failure));
            }
            if Instant::now() >= last_deadline {
                break;
            }
            tokio::time::sleep(backoff.mul_f64(jitter())).await;
            backoff *= 2;
        }
        Err(if reached { Attempt::Failed(Failure::TimedOut) } else { Attempt::Hopeless(Failure::TimedOut) })
    }

    async fn flush(&mut self, batch: &[Pending], flight: &mut Flight) -> Result<Vec<Verdict>, store::Error> {
        // The session is out of its place while it is in use: whatever cuts this short closes it.
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                let session = connect(&self.setup).await?;
                flight.reached = true;
                session
            }
        };
        let flushed = batch::flush(&mut session, &self.setup, batch, flight).await;
        let answered = match &flushed {
            Ok(_verdicts) => true,
            Err(store::Error::Corrupt { .. }) => true,
            Err(store::Error::Database(error)) => matches!(error, sqlx::Error::Database(_)),
        };
        if answered {
            flight.reached = true;
            self.session = Some(session);
        }
        flushed
    }

    /// Finds out what became of a transaction whose answer was an error, or was lost (rules R1).
    ///
    /// One transaction after `last_deadline` nobody is left to be told.
    async fn resolve(&mut self, InDoubt { alive, trace, verdicts: _ }: &InDoubt, last_deadline: Instant) -> Fate {
        let Some(trace) = trace else { return Fate::Aborted };
        let limits = &self.setup.limits;
        let deadline = (last_deadline + limits.flush_deadline).min(Instant::now() + limits.resolve_deadline);
        if let Some(mut session) = self.session.take() {
            // A session that answers again has ended the transaction.
            let left = timeout_at(deadline, trace.is_left(&mut session.connection)).await;
            if let Ok(Ok(left)) = left {
                self.session = Some(session);
                return if left { Fate::Committed } else { Fate::Aborted };
            }
        }
        fate::resolve(&self.setup.connect, *alive, trace, deadline).await
    }

    fn settle(&mut self, batch: Vec<Pending>, verdicts: Vec<Verdict>) {
        let mut appended = false;
        for (pending, verdict) in batch.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Answer(outcome) => {
                    appended |= outcome.is_ok();
                    answer(pending, outcome);
                }
                Verdict::Busy(waits_for) => {
                    metrics::counter!(COMMANDS_REQUEUED).increment(1);
                    pending.place.wait_for(waits_for);
                    self.busy.push_back(pending);
                }
            }
        }
        if appended {
            self.setup.committed.notify_one();
        }
    }
}

/// A session for a lane. Its few statements are planned once: planning one that writes costs more than a small execution of it,
/// and no plan depends on how many rows there are. All of them go by key; left to itself the planner, which sees the tables of a
/// new system empty, would walk through them for as long as it keeps that plan.
///
/// The server cancels a statement before the lane gives its connection up: what was cancelled is known not to be executed.
async fn connect(setup: &Setup) -> Result<Session, sqlx::Error> {
    let mut connection = postgres::connect(&setup.connect).await?;
    let statement_ms = (setup.limits.flush_deadline * 3 / 4).as_millis().to_string();
    sqlx::query(
        "select set_config('plan_cache_mode', 'force_generic_plan', false), set_config('enable_seqscan', 'off', false),
             set_config('statement_timeout', $1, false)",
    )
    .bind(statement_ms)
    .execute(&mut connection)
    .await?;
    let alive = Alive::take(&mut connection).await?;
    Ok(Session { connection, alive })
}

/// Why a batch was not executed.
enum Attempt {
    /// For a reason that may be one member's.
    Failed(Failure),
    /// For a reason that concerns all of it.
    Hopeless(Failure),
}

/// What to answer when trying again is of no use.
fn permanent(error: &store::Error) -> Option<Failure> {
    match error {
        store::Error::Database(error) if is_transient(error) => None,
        store::Error::Database(error) if is_data_exception(error) => Some(Failure::Unstorable),
        store::Error::Database(_) | store::Error::Corrupt { .. } => Some(Failure::Database),
    }
}

/// Those whose time is not up; the others are told.
fn in_time(batch: Vec<Pending>) -> Vec<Pending> {
    let now = Instant::now();
    let (in_time, late): (Vec<_>, Vec<_>) =
        batch.into_iter().partition(|pending| pending.deadline > now && !pending.place.has_left());
    for pending in late {
        if let Some(failure) = pending.place.leave() {
            answer(pending, Err(failure));
        }
    }
    in_time
}

fn fail(batch: Vec<Pending>, failure: Failure) {
    for pending in batch {
        answer(pending, Err(failure));
    }
}

fn answer(pending: Pending, outcome: Result<super::Answer, Failure>) {
    // A caller that has gone away finds the outcome under its key, or in the read model.
    let _gone = pending.answer.send(outcome);
}

/// From 0.5 to 1.5, so that two lanes that collided do not collide again.
fn jitter() -> f64 {
    0.5 + fastrand::f64()
}
