//! One transaction for many commands: claim keys, lock, decide, write, commit.
//!
//! Commands are decided in memory in the order of their arrival, several on one order in sequence. What one of them meets
//! (a rejection, a busy key, a busy order) concerns it alone.

use std::collections::{HashMap, HashSet};

use domain::order::{Order, OrderCommand};
use domain::{Decider, EventId, OrderId, Recorded, schema};
use sqlx::types::Uuid;
use sqlx::{PgConnection, Row};

use super::commit::{self, Fate, Xid};
use super::{Answer, Failure, Outcome, Pending, Request, Setup};
use crate::idempotency::{self, Remembered};
use crate::store::{self, Aggregate, NewEvent, Writes};

/// What became of one command of a batch, once its transaction is committed.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Tell the caller.
    Answer(Result<Answer, Failure>),
    /// Its key or its order is in use: try again with the next batch. The failure is what to say when time is up.
    Busy(Failure),
}

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Flushed {
    /// Durable, or there was nothing to write.
    Committed(Vec<Verdict>),
    /// Rolled back although it was asked to commit.
    Aborted,
    /// The commit's answer was not conclusive; what hangs on it is still in [`Flight`].
    InDoubt,
}

/// How far a flush came, should it be cut off.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The database answered: what failed after that may be a member's fault.
    pub(super) reached: bool,
    /// From just before the commit is sent: what hangs on it.
    pub(super) in_doubt: Option<(Xid, Vec<Verdict>)>,
}

/// A lane's connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: PgConnection,
    /// The transaction of the next batch has begun, in the message that committed the last one.
    pub(super) begun: bool,
}

/// Runs the transaction. An error means that it is not committed, unless something is in doubt.
///
/// When `more` tells of commands that wait already, their transaction begins in the message that commits this one: a
/// round trip less for each batch under load. An idle session is never left in a transaction.
pub(super) async fn flush(
    session: &mut Session,
    setup: &Setup,
    batch: &[Pending],
    more: impl Fn() -> bool,
    flight: &mut Flight,
) -> Result<Flushed, store::Error> {
    let requests: Vec<&Request> = batch.iter().map(|pending| &pending.request).collect();
    let Session { connection, begun } = session;
    if !std::mem::take(begun) {
        sqlx::raw_sql("begin").execute(&mut *connection).await?;
    }
    flight.reached = true;
    let (verdicts, writes) = decide_all(connection, setup, &requests).await?;
    if writes.is_empty() {
        sqlx::raw_sql("commit").execute(&mut *connection).await?;
        return Ok(Flushed::Committed(verdicts));
    }
    let xid = store::write(connection, &writes).await?;
    let (xid, _) = &*flight.in_doubt.insert((xid, verdicts));
    let and_begin = more();
    let fate = commit::commit(connection, xid, and_begin).await?;
    *begun = and_begin;
    metrics::histogram!(crate::metrics::BATCH_COMMANDS).record(batch.len() as f64);
    if fate == Fate::Unknown {
        return Ok(Flushed::InDoubt);
    }
    let verdicts = flight.in_doubt.take().map(|(_, verdicts)| verdicts).unwrap_or_default();
    Ok(if fate == Fate::Committed { Flushed::Committed(verdicts) } else { Flushed::Aborted })
}

/// Decides every command of a batch; nothing is written yet.
async fn decide_all(
    connection: &mut PgConnection,
    setup: &Setup,
    requests: &[&Request],
) -> Result<(Vec<Verdict>, Writes), store::Error> {
    let mut verdicts: Vec<Option<Verdict>> = requests.iter().map(|_| None).collect();
    claim_keys(connection, requests, &mut verdicts).await?;
    let mut aggregates = load(connection, setup, requests, &mut verdicts).await?;
    let mut writes = Writes::default();
    for (request, verdict) in requests.iter().zip(&mut verdicts) {
        if verdict.is_none() {
            *verdict = Some(decide_one(setup, request, &mut aggregates, &mut writes));
        }
    }
    for event in &writes.events {
        let order_id = event.recorded.order_id;
        if let Some(aggregate) = aggregates.remove(&order_id) {
            writes.aggregates.insert(order_id, aggregate);
        }
    }
    let verdicts = verdicts.into_iter().map(|verdict| verdict.unwrap_or(Verdict::Busy(Failure::TimedOut))).collect();
    Ok((verdicts, writes))
}

/// Claims the keys without waiting for any. A busy key, or the second use of a key in one batch, goes back to the queue.
async fn claim_keys(
    connection: &mut PgConnection,
    requests: &[&Request],
    verdicts: &mut [Option<Verdict>],
) -> Result<(), sqlx::Error> {
    let keys: HashSet<&str> = requests.iter().filter_map(|request| Some(request.key.as_ref()?.key.as_str())).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let mut free = idempotency::try_lock(connection, &keys).await?;
    let remembered = idempotency::remembered(connection, &free).await?;
    for (request, verdict) in requests.iter().zip(verdicts) {
        let Some(key) = &request.key else { continue };
        match remembered.get(&key.key) {
            Some(Remembered { fingerprint, reply }) if *fingerprint == key.fingerprint => {
                *verdict = Some(Verdict::Answer(Ok(Answer { reply: reply.clone(), replayed: true })));
            }
            Some(_another_request) => *verdict = Some(Verdict::Answer(Err(Failure::KeyReused))),
            None if free.remove(key.key.as_str()) => {}
            None => *verdict = Some(Verdict::Busy(Failure::KeyBusy)),
        }
    }
    Ok(())
}

/// Locks and loads the aggregates of the commands that are still open.
async fn load(
    connection: &mut PgConnection,
    setup: &Setup,
    requests: &[&Request],
    verdicts: &mut [Option<Verdict>],
) -> Result<HashMap<OrderId, Aggregate>, store::Error> {
    let open = |verdict: &Option<Verdict>, request: &Request| {
        verdict.is_none() && !matches!(request.command, OrderCommand::Create { .. })
    };
    let mut wanted: Vec<OrderId> = requests
        .iter()
        .zip(&*verdicts)
        .filter_map(|(request, verdict)| open(verdict, request).then_some(request.order_id))
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let aggregates = store::lock(connection, &wanted, setup.default_currency).await?;
    wanted.retain(|order_id| !aggregates.contains_key(order_id));
    if !wanted.is_empty() {
        let busy = store::existing(connection, &wanted).await?;
        for (request, verdict) in requests.iter().zip(verdicts) {
            if open(verdict, request) && busy.contains(&request.order_id) {
                *verdict = Some(Verdict::Busy(Failure::TimedOut));
            }
        }
    }
    Ok(aggregates)
}

/// Decides one command on the state that its predecessors in the batch have left.
fn decide_one(
    setup: &Setup,
    request: &Request,
    aggregates: &mut HashMap<OrderId, Aggregate>,
    writes: &mut Writes,
) -> Verdict {
    let outcome = match decide(request, aggregates, writes) {
        Ok(outcome) => outcome,
        Err(failure) => return Verdict::Answer(Err(failure)),
    };
    let reply = (setup.render)(&outcome);
    if let Some(key) = &request.key {
        writes.replies.push((key.clone(), reply.clone()));
    }
    Verdict::Answer(Ok(Answer { reply, replayed: false }))
}

fn decide(
    request: &Request,
    aggregates: &mut HashMap<OrderId, Aggregate>,
    writes: &mut Writes,
) -> Result<Outcome, Failure> {
    let order_id = request.order_id;
    let before = aggregates.get(&order_id).cloned().unwrap_or_default();
    if let Some(expected) = request.expected
        && before.state != Order::Absent
        && expected != before.version
    {
        return Ok(Outcome::VersionMismatch { expected, current: before.version });
    }
    let events = match Order::decide(&before.state, request.command.clone()) {
        Ok(events) => events,
        Err(rejection) => return Ok(Outcome::Rejected(rejection)),
    };
    let created = before.state == Order::Absent;
    let Aggregate { mut version, mut state } = before;
    let mut appended = Vec::with_capacity(events.len());
    for event in events {
        version = version.next();
        state = Order::evolve(state, &event);
        let event_id = EventId(Uuid::now_v7());
        let recorded = Recorded { event_id, order_id, version, occurred_at: request.occurred_at, event };
        let payload = schema::encode(&recorded).map_err(|_serialisation| Failure::TooLarge)?;
        if payload.len() > schema::MESSAGE_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        appended.push(NewEvent { recorded, payload, metadata: request.metadata.clone() });
    }
    if !appended.is_empty() {
        writes.events.append(&mut appended);
        aggregates.insert(order_id, Aggregate { version, state: state.clone() });
    }
    Ok(Outcome::Accepted { order_id, version, state, created })
}

/// Leaves the connection outside any transaction, or says that it cannot.
pub(super) async fn roll_back(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let rows = sqlx::raw_sql("rollback; select 1").fetch_all(connection).await?;
    match rows.first().map(|row| row.try_get::<i32, _>(0)) {
        Some(Ok(1)) => Ok(()),
        _ => Err(sqlx::Error::Protocol("the connection is out of step".to_owned())),
    }
}
