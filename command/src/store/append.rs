//! The one message that writes all of a batch: the procedure `append` of the migrations.

use chrono::{DateTime, Utc};
use domain::order::Order;
use domain::{OrderId, Version};
use sqlx::PgConnection;
use sqlx::types::Uuid;

use super::{Aggregate, Error, NewEvent, Writes};
use crate::idempotency::{Key, Reply};

/// What came of it.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It is durable: the server said so of the transaction itself (rules R1).
    Committed,
    /// Nothing was written.
    Refused(Refusal),
}

/// What was not as it was when the batch was decided.
#[derive(Debug, Default)]
pub(crate) struct Refusal {
    /// Keys that another transaction is using.
    pub(crate) busy_keys: Vec<String>,
    /// Keys that have an answer.
    pub(crate) used_keys: Vec<String>,
    /// Orders that another transaction has locked.
    pub(crate) busy_orders: Vec<OrderId>,
    /// Orders that are at another version.
    pub(crate) moved_orders: Vec<OrderId>,
}

/// As the procedure answers.
type Answer = (Option<String>, Option<Vec<String>>, Option<Vec<String>>, Option<Vec<Uuid>>, Option<Vec<Uuid>>);

const CALL: &str = "call append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, \
                    $21, $22, $23, $24, $25, $26, $27, $28, null, null, null, null, null)";

/// Locks and compares, appends events, brings their aggregate rows up to date, fills the outbox, remembers the answers, and commits.
///
/// After an error it is not known whether it has: ask what became of it.
pub(crate) async fn append(connection: &mut PgConnection, writes: &Writes) -> Result<Appended, Error> {
    let replies = ReplyColumns::of(&writes.replies);
    let [known, new] = AggregateColumns::of(writes)?;
    let events = EventColumns::of(&writes.events);
    let answer: Answer = sqlx::query_as(CALL)
        .bind(some(&replies.lock))
        .bind(some(&replies.key))
        .bind(some(&replies.fingerprint))
        .bind(some(&replies.status))
        .bind(some(&replies.etag))
        .bind(some(&replies.location))
        .bind(some(&replies.body))
        .bind(some(&known.order_id))
        .bind(some(&known.before))
        .bind(some(&known.version))
        .bind(some(&known.status))
        .bind(some(&known.state))
        .bind(some(&new.order_id))
        .bind(some(&new.version))
        .bind(some(&new.status))
        .bind(some(&new.state))
        .bind(Order::STATE_REVISION)
        .bind(some(&events.order_id))
        .bind(some(&events.version))
        .bind(some(&events.event_id))
        .bind(some(&events.event_type))
        .bind(some(&events.schema_version))
        .bind(some(&events.payload))
        .bind(some(&events.occurred_at))
        .bind(any(&events.actor))
        .bind(any(&events.correlation_id))
        .bind(any(&events.causation_id))
        .bind(any(&events.traceparent))
        .fetch_one(connection)
        .await?;
    let (fate, busy_keys, used_keys, busy_orders, moved_orders) = answer;
    let orders = |ids: Option<Vec<Uuid>>| ids.unwrap_or_default().into_iter().map(OrderId).collect();
    match fate.as_deref() {
        Some("committed") => Ok(Appended::Committed),
        Some("refused") => Ok(Appended::Refused(Refusal {
            busy_keys: busy_keys.unwrap_or_default(),
            used_keys: used_keys.unwrap_or_default(),
            busy_orders: orders(busy_orders),
            moved_orders: orders(moved_orders),
        })),
        _ => Err(Error::Database(sqlx::Error::Protocol(format!("a transaction's end was told as {fate:?}")))),
    }
}

/// A part that is empty is not there.
fn some<T>(column: &[T]) -> Option<&[T]> {
    (!column.is_empty()).then_some(column)
}

/// A column without a value is not there: its rows are filled with nulls all the same.
fn any<'c, 'e>(column: &'c [Option<&'e str>]) -> Option<&'c [Option<&'e str>]> {
    column.iter().any(Option::is_some).then_some(column)
}

#[derive(Default)]
struct EventColumns<'e> {
    order_id: Vec<Uuid>,
    version: Vec<i32>,
    event_id: Vec<Uuid>,
    event_type: Vec<&'static str>,
    schema_version: Vec<i16>,
    payload: Vec<&'e str>,
    occurred_at: Vec<DateTime<Utc>>,
    actor: Vec<Option<&'e str>>,
    correlation_id: Vec<Option<&'e str>>,
    causation_id: Vec<Option<&'e str>>,
    traceparent: Vec<Option<&'e str>>,
}

impl<'e> EventColumns<'e> {
    fn of(events: &'e [NewEvent]) -> Self {
        let mut columns = Self::default();
        for NewEvent { recorded, payload, metadata } in events {
            columns.order_id.push(recorded.order_id.0);
            columns.version.push(column_version(recorded.version));
            columns.event_id.push(recorded.event_id.0);
            columns.event_type.push(recorded.event.event_type());
            columns.schema_version.push(i16::try_from(recorded.event.schema_version()).unwrap_or(i16::MAX));
            columns.payload.push(payload);
            columns.occurred_at.push(recorded.occurred_at);
            columns.actor.push(metadata.actor.as_deref());
            columns.correlation_id.push(metadata.correlation_id.as_deref());
            columns.causation_id.push(metadata.causation_id.as_deref());
            columns.traceparent.push(metadata.traceparent.as_deref());
        }
        columns
    }
}

#[derive(Default)]
struct AggregateColumns {
    order_id: Vec<Uuid>,
    before: Vec<i32>,
    version: Vec<i32>,
    status: Vec<&'static str>,
    state: Vec<String>,
}

impl AggregateColumns {
    /// Those of orders that have a row, and those of new ones.
    fn of(writes: &Writes) -> Result<[Self; 2], Error> {
        let [mut known, mut new] = [Self::default(), Self::default()];
        for (order_id, (before, aggregate)) in &writes.aggregates {
            let columns = if *before == Version::default() { &mut new } else { &mut known };
            columns.push(*order_id, *before, aggregate)?;
        }
        Ok([known, new])
    }

    fn push(
        &mut self,
        order_id: OrderId,
        before: Version,
        Aggregate { version, state }: &Aggregate,
    ) -> Result<(), Error> {
        let corrupt = |error: serde_json::Error| Error::Corrupt { order_id, source: error.into() };
        self.order_id.push(order_id.0);
        self.before.push(column_version(before));
        self.version.push(column_version(*version));
        self.status.push(state.status().map_or("ABSENT", |status| status.as_str()));
        self.state.push(serde_json::to_string(state).map_err(corrupt)?);
        Ok(())
    }
}

#[derive(Default)]
struct ReplyColumns<'r> {
    lock: Vec<i64>,
    key: Vec<&'r str>,
    fingerprint: Vec<&'r [u8]>,
    status: Vec<i16>,
    etag: Vec<Option<&'r str>>,
    location: Vec<Option<&'r str>>,
    body: Vec<&'r str>,
}

impl<'r> ReplyColumns<'r> {
    fn of(replies: &'r [(Key, Reply)]) -> Self {
        let mut columns = Self::default();
        for (key, reply) in replies {
            columns.lock.push(key.lock_id());
            columns.key.push(&key.key);
            columns.fingerprint.push(&key.fingerprint);
            columns.status.push(i16::try_from(reply.status).unwrap_or(i16::MAX));
            columns.etag.push(reply.etag.as_deref());
            columns.location.push(reply.location.as_deref());
            columns.body.push(&reply.body);
        }
        columns
    }
}

/// A version beyond two thousand million breaks the column's check and fails its transaction.
fn column_version(version: Version) -> i32 {
    i32::try_from(version.0).unwrap_or(-1)
}
