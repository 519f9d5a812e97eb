//! The one message that writes all of a batch: the procedure `append` of the migrations.

use chrono::{DateTime, Utc};
use domain::order::Order;
use domain::{OrderId, Version};
use sqlx::postgres::{PgHasArrayType, PgTypeInfo};
use sqlx::types::Uuid;
use sqlx::{Encode, PgConnection, Postgres, Type};

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

const CALL: &str = "call append($1, $2, $3, $4, $5, null, null, null, null, null)";

/// Locks and compares, appends events, brings their aggregate rows up to date, fills the outbox, remembers the answers, and commits.
///
/// After an error it is not known whether it has: ask what became of it.
pub(crate) async fn append(connection: &mut PgConnection, writes: &Writes) -> Result<Appended, Error> {
    let answers: Vec<RememberedAnswer<'_>> = writes.replies.iter().map(RememberedAnswer::of).collect();
    let events: Vec<AppendedEvent<'_>> = writes.events.iter().map(AppendedEvent::of).collect();
    let (mut known, mut new) = (Vec::new(), Vec::new());
    for (order_id, (before, aggregate)) in &writes.aggregates {
        let orders = if *before == Version::default() { &mut new } else { &mut known };
        orders.push(WrittenOrder::of(*order_id, *before, aggregate)?);
    }
    let answer: Answer = sqlx::query_as(CALL)
        .bind(some(&answers))
        .bind(some(&known))
        .bind(some(&new))
        .bind(Order::STATE_REVISION)
        .bind(some(&events))
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

/// Sends the message with nothing in it: the server then has planned each of its statements.
pub(crate) async fn rehearse(connection: &mut PgConnection) -> Result<(), Error> {
    let (answers, orders, events): (&[RememberedAnswer<'_>], &[WrittenOrder], &[AppendedEvent<'_>]) = (&[], &[], &[]);
    let rehearsed = sqlx::query_as::<_, Answer>(CALL).bind(answers).bind(orders).bind(orders);
    rehearsed.bind(Order::STATE_REVISION).bind(events).fetch_one(connection).await?;
    Ok(())
}

/// A part that is empty is not there.
fn some<T>(rows: &[T]) -> Option<&[T]> {
    (!rows.is_empty()).then_some(rows)
}

/// Says by which name the database knows a row. Its fields are those of the type in the migration, in their order.
macro_rules! row_type {
    ($row:ty, $name:literal) => {
        impl Type<Postgres> for $row {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($name)
            }
        }

        impl PgHasArrayType for $row {
            fn array_type_info() -> PgTypeInfo {
                PgTypeInfo::array_of($name)
            }
        }
    };
}

row_type!(AppendedEvent<'_>, "appended_event");
row_type!(WrittenOrder, "written_order");
row_type!(RememberedAnswer<'_>, "remembered_answer");

#[derive(Encode)]
struct AppendedEvent<'e> {
    order_id: Uuid,
    version: i32,
    event_id: Uuid,
    event_type: &'static str,
    schema_version: i16,
    payload: &'e str,
    occurred_at: DateTime<Utc>,
    actor: Option<&'e str>,
    correlation_id: Option<&'e str>,
    causation_id: Option<&'e str>,
    traceparent: Option<&'e str>,
}

impl<'e> AppendedEvent<'e> {
    fn of(NewEvent { recorded, payload, metadata }: &'e NewEvent) -> Self {
        Self {
            order_id: recorded.order_id.0,
            version: column_version(recorded.version),
            event_id: recorded.event_id.0,
            event_type: recorded.event.event_type(),
            schema_version: i16::try_from(recorded.event.schema_version()).unwrap_or(i16::MAX),
            payload,
            occurred_at: recorded.occurred_at,
            actor: metadata.actor.as_deref(),
            correlation_id: metadata.correlation_id.as_deref(),
            causation_id: metadata.causation_id.as_deref(),
            traceparent: metadata.traceparent.as_deref(),
        }
    }
}

#[derive(Encode)]
struct WrittenOrder {
    order_id: Uuid,
    decided_version: i32,
    version: i32,
    status: &'static str,
    state: String,
}

impl WrittenOrder {
    fn of(order_id: OrderId, before: Version, Aggregate { version, state }: &Aggregate) -> Result<Self, Error> {
        let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| Error::Corrupt { order_id, source };
        let status = state.status().ok_or_else(|| corrupt("an order that has events is absent".into()))?;
        Ok(Self {
            order_id: order_id.0,
            decided_version: column_version(before),
            version: column_version(*version),
            status: status.as_str(),
            state: serde_json::to_string(state).map_err(|error| corrupt(error.into()))?,
        })
    }
}

#[derive(Encode)]
struct RememberedAnswer<'r> {
    lock: i64,
    key: &'r str,
    fingerprint: &'r [u8],
    status: i16,
    etag: Option<&'r str>,
    location: Option<&'r str>,
    body: &'r str,
}

impl<'r> RememberedAnswer<'r> {
    fn of((key, reply): &'r (Key, Reply)) -> Self {
        Self {
            lock: key.lock_id(),
            key: &key.key,
            fingerprint: &key.fingerprint,
            status: i16::try_from(reply.status).unwrap_or(i16::MAX),
            etag: reply.etag.as_deref(),
            location: reply.location.as_deref(),
            body: &reply.body,
        }
    }
}

/// A version beyond two thousand million breaks the column's check and fails its transaction.
fn column_version(version: Version) -> i32 {
    i32::try_from(version.0).unwrap_or(-1)
}
