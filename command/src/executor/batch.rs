//! One transaction for many commands: load what they are about, decide, and write all of it in one message.
//!
//! Commands are decided in memory in the order of their arrival, several on one order in sequence. Nothing is locked meanwhile:
//! the message says what the decisions rest on, and is refused when that is no longer so. Then what changed is looked at, and
//! the batch is decided again. What one command meets (a rejection, a busy key, a busy order) concerns it alone.

use std::collections::{HashMap, HashSet};

use chassis::telemetry::ErrorChain;
use domain::order::{Order, OrderCommand};
use domain::{Decider, EventId, OrderId, Recorded, Version, schema};
use sqlx::PgConnection;
use sqlx::types::Uuid;

use super::fate::{Alive, Trace};
use super::{Answer, Failure, Outcome, Pending, Request, Setup};
use crate::idempotency::{self, Remembered};
use crate::store::{self, Aggregate, Appended, NewEvent, Refusal, Writes};

/// So often is a batch decided again because an order has moved on; then that order's commands make room for the others.
const MOVES_MAX: u32 = 3;

/// What became of one command of a batch, once its transaction is committed.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Tell the caller.
    Answer(Result<Answer, Failure>),
    /// Its key or its order is in use: try again with the next batch. The failure is what to say when time is up.
    Busy(Failure),
}

/// How far a flush came, should it be cut off.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// The database answered: what failed after that may be a member's fault.
    pub(super) reached: bool,
    /// From just before the message that writes is sent until it is answered: what hangs on it.
    pub(super) in_doubt: Option<InDoubt>,
}

/// A transaction that may or may not be committed.
#[derive(Debug)]
pub(super) struct InDoubt {
    /// Whose it was.
    pub(super) alive: Alive,
    /// By which it is found again.
    pub(super) trace: Option<Trace>,
    /// What to say when it is.
    pub(super) verdicts: Vec<Verdict>,
}

/// A lane's connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) connection: PgConnection,
    pub(super) alive: Alive,
}

/// What the decisions of a batch rest on.
#[derive(Debug, Default)]
struct Known {
    aggregates: HashMap<OrderId, Aggregate>,
    remembered: HashMap<String, Remembered>,
    busy_keys: HashSet<String>,
    busy_orders: HashSet<OrderId>,
    moves: u32,
}

/// Runs the transaction. After an error nothing is committed, unless something is in doubt.
pub(super) async fn flush(
    session: &mut Session,
    setup: &Setup,
    batch: &[Pending],
    flight: &mut Flight,
) -> Result<Vec<Verdict>, store::Error> {
    let requests: Vec<&Request> = batch.iter().map(|pending| &pending.request).collect();
    let Session { connection, alive } = session;
    let mut known = Known::default();
    loop {
        known.load(connection, setup, &requests).await?;
        let (verdicts, writes) = decide_all(setup, batch, &known);
        if writes.is_empty() {
            return Ok(verdicts);
        }
        flight.in_doubt = Some(InDoubt { alive: *alive, trace: Trace::of(&writes), verdicts });
        let appended = store::append(connection, &writes).await?;
        flight.reached = true;
        let verdicts = flight.in_doubt.take().map(|in_doubt| in_doubt.verdicts).unwrap_or_default();
        match appended {
            Appended::Committed => {
                metrics::histogram!(crate::metrics::BATCH_COMMANDS).record(batch.len() as f64);
                return Ok(verdicts);
            }
            Appended::Refused(refusal) => {
                batch.iter().for_each(|pending| pending.place.not_executed());
                known.learn(connection, refusal).await?;
            }
        }
    }
}

/// Sends every statement of a batch once, with nothing in it, so that the server has planned them.
pub(super) async fn rehearse(session: &mut Session, setup: &Setup) -> Result<(), store::Error> {
    store::load(&mut session.connection, &[OrderId(Uuid::nil())], setup.default_currency).await?;
    store::rehearse(&mut session.connection).await?;
    idempotency::remembered(&mut session.connection, &[]).await?;
    Ok(())
}

impl Known {
    /// Loads the orders that commands are about and that are not known. New ones are known to be absent.
    async fn load(
        &mut self,
        connection: &mut PgConnection,
        setup: &Setup,
        requests: &[&Request],
    ) -> Result<(), store::Error> {
        let wanted = |request: &&&Request| {
            !matches!(request.command, OrderCommand::Create { .. })
                && !self.aggregates.contains_key(&request.order_id)
                && self.settled(request).is_none()
        };
        let mut orders: Vec<OrderId> = requests.iter().filter(wanted).map(|request| request.order_id).collect();
        orders.sort_unstable();
        orders.dedup();
        if !orders.is_empty() {
            self.aggregates.extend(store::load(connection, &orders, setup.default_currency).await?);
        }
        Ok(())
    }

    /// What is said without a decision: a key that was used, a key or an order that is in use.
    fn settled(&self, request: &Request) -> Option<Verdict> {
        if let Some(key) = &request.key {
            match self.remembered.get(&key.key) {
                Some(Remembered { fingerprint, reply }) if key.is_of(fingerprint) => {
                    return Some(Verdict::Answer(Ok(Answer { reply: reply.clone(), replayed: true })));
                }
                Some(_another_request) => return Some(Verdict::Answer(Err(Failure::KeyReused))),
                None if self.busy_keys.contains(&key.key) => return Some(Verdict::Busy(Failure::KeyBusy)),
                None => {}
            }
        }
        self.busy_orders.contains(&request.order_id).then_some(Verdict::Busy(Failure::TimedOut))
    }

    /// Looks at what was not as it was thought to be.
    async fn learn(&mut self, connection: &mut PgConnection, refusal: Refusal) -> Result<(), store::Error> {
        let Refusal { busy_keys, used_keys, busy_orders, moved_orders } = refusal;
        if !used_keys.is_empty() {
            self.remembered.extend(idempotency::remembered(connection, &used_keys).await?);
        }
        self.busy_keys.extend(busy_keys);
        self.busy_orders.extend(busy_orders);
        self.moves += u32::from(!moved_orders.is_empty());
        for order in moved_orders {
            self.aggregates.remove(&order);
            if self.moves > MOVES_MAX {
                self.busy_orders.insert(order);
            }
        }
        Ok(())
    }
}

/// Decides every command of a batch; nothing is written yet.
fn decide_all(setup: &Setup, batch: &[Pending], known: &Known) -> (Vec<Verdict>, Writes) {
    let mut writes = Writes::default();
    let mut keys: HashSet<&str> = HashSet::new();
    let verdicts = batch.iter().map(|Pending { request, place, .. }| {
        known.settled(request).unwrap_or_else(|| {
            // The second use of a key in one batch waits for the answer to the first.
            match &request.key {
                Some(key) if !keys.insert(&key.key) => Verdict::Busy(Failure::KeyBusy),
                // The caller was told that it is not executed.
                _ if !place.take() => Verdict::Answer(Err(Failure::TimedOut)),
                _ => decide_one(setup, request, known, &mut writes),
            }
        })
    });
    (verdicts.collect(), writes)
}

/// Decides one command on the state that its predecessors in the batch have left. Its events join the batch only after its answer is
/// rendered: a command that cannot be answered is not executed.
fn decide_one(setup: &Setup, request: &Request, known: &Known, writes: &mut Writes) -> Verdict {
    let Decided { outcome, events, aggregate } = match decide(request, known, writes) {
        Ok(decided) => decided,
        Err(failure) => return Verdict::Answer(Err(failure)),
    };
    let reply = match (setup.render)(&outcome) {
        Ok(reply) => reply,
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), order = %request.order_id, "a command is not executed");
            return Verdict::Answer(Err(Failure::Unrenderable));
        }
    };
    writes.events.extend(events);
    if let Some(aggregate) = aggregate {
        writes.aggregates.insert(request.order_id, aggregate);
    }
    if let Some(key) = &request.key {
        writes.replies.push((key.clone(), reply.clone()));
    }
    Verdict::Answer(Ok(Answer { reply, replayed: false }))
}

/// What the domain says to a command, and what that writes.
struct Decided {
    outcome: Outcome,
    events: Vec<NewEvent>,
    /// The aggregate that the events lead to, and the version that was loaded; none without events.
    aggregate: Option<(Version, Aggregate)>,
}

impl Decided {
    /// An outcome that changes nothing.
    fn unchanged(outcome: Outcome) -> Self {
        Self { outcome, events: Vec::new(), aggregate: None }
    }
}

fn decide(request: &Request, known: &Known, writes: &Writes) -> Result<Decided, Failure> {
    let order_id = request.order_id;
    let (loaded, before) = match writes.aggregates.get(&order_id) {
        Some((loaded, aggregate)) => (*loaded, aggregate.clone()),
        None => {
            let aggregate = known.aggregates.get(&order_id).cloned().unwrap_or_default();
            (aggregate.version, aggregate)
        }
    };
    let expected = &request.expected;
    if before.state != Order::Absent && !expected.is_empty() && !expected.contains(&before.version) {
        let (expected, current) = (expected.clone(), before.version);
        return Ok(Decided::unchanged(Outcome::VersionMismatch { expected, current }));
    }
    let events = match Order::decide(&before.state, request.command.clone()) {
        Ok(events) => events,
        Err(rejection) => return Ok(Decided::unchanged(Outcome::Rejected(rejection))),
    };
    let created = before.state == Order::Absent;
    let Aggregate { mut version, mut state } = before;
    let mut appended = Vec::with_capacity(events.len());
    for event in events {
        version = version.next();
        state = Order::evolve(state, &event);
        let event_id = EventId(Uuid::now_v7());
        let recorded = Recorded { event_id, order_id, version, occurred_at: request.occurred_at, event };
        let payload = schema::encode(&recorded).map_err(|error| {
            tracing::error!(error = %ErrorChain(&error), order = %order_id, "an event cannot be encoded");
            Failure::Unrenderable
        })?;
        if payload.len() > schema::MESSAGE_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        appended.push(NewEvent { recorded, payload, metadata: request.metadata.clone() });
    }
    let aggregate = (!appended.is_empty()).then(|| (loaded, Aggregate { version, state: state.clone() }));
    Ok(Decided { outcome: Outcome::Accepted { order_id, version, state, created }, events: appended, aggregate })
}
