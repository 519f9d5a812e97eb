//! The event log and the aggregate rows in PostgreSQL: what a batch loads, and the one statement that writes it all.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use domain::order::Order;
use domain::{Currency, Metadata, OrderEvent, OrderId, Recorded, Version, fold, schema};
use sqlx::PgConnection;
use sqlx::types::Uuid;
use thiserror::Error;

use crate::executor::commit::Xid;
use crate::idempotency::{Key, Reply};

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The database's own words.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// What is stored is not what this program wrote.
    #[error("order {order_id} is stored in a way that cannot be read")]
    Corrupt {
        /// Whose.
        order_id: OrderId,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An order as far as its events are known.
#[derive(Debug, Clone, Default)]
pub struct Aggregate {
    /// How many events it has.
    pub version: Version,
    /// The fold of them.
    pub state: Order,
}

/// An event that is to be appended, with the text that is stored and published.
#[derive(Debug)]
pub(crate) struct NewEvent {
    pub(crate) recorded: Recorded<OrderEvent>,
    pub(crate) payload: String,
    pub(crate) metadata: Metadata,
}

/// Everything that one transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) events: Vec<NewEvent>,
    /// The aggregates that the events lead to.
    pub(crate) aggregates: HashMap<OrderId, Aggregate>,
    /// Answers to remember under their keys.
    pub(crate) replies: Vec<(Key, Reply)>,
}

impl Writes {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.replies.is_empty()
    }
}

type AggregateRow = (Uuid, i32, String, i16);

/// Locks and loads aggregates. Those that another transaction holds are left out, like those that do not exist.
///
/// The lock comes first, so that within one order the outbox's sequence order is its version order (rules R4, R5).
pub(crate) async fn lock(
    connection: &mut PgConnection,
    orders: &[OrderId],
    default_currency: Currency,
) -> Result<HashMap<OrderId, Aggregate>, Error> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.0).collect();
    let rows: Vec<AggregateRow> = sqlx::query_as(
        "select order_id, version, state, state_revision from orders
         where order_id = any($1) order by order_id for update skip locked",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?;
    let mut aggregates = HashMap::with_capacity(rows.len());
    for row in rows {
        let order_id = OrderId(row.0);
        aggregates.insert(order_id, read_aggregate(connection, row, default_currency).await?);
    }
    Ok(aggregates)
}

/// Tells orders that are only locked by somebody else from those that do not exist.
pub(crate) async fn existing(
    connection: &mut PgConnection,
    orders: &[OrderId],
) -> Result<HashSet<OrderId>, sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.0).collect();
    let found: Vec<Uuid> = sqlx::query_scalar("select order_id from orders where order_id = any($1)")
        .bind(&ids)
        .fetch_all(connection)
        .await?;
    Ok(found.into_iter().map(OrderId).collect())
}

/// The stored state, or the fold of the events when another revision of the code wrote it.
async fn read_aggregate(
    connection: &mut PgConnection,
    (order_id, version, state, revision): AggregateRow,
    default_currency: Currency,
) -> Result<Aggregate, Error> {
    let order_id = OrderId(order_id);
    let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| Error::Corrupt { order_id, source };
    if revision != Order::STATE_REVISION {
        let history = history(connection, order_id, default_currency).await?;
        let version = history.last().map(|recorded| recorded.version).unwrap_or_default();
        let state = fold::<Order>(history.iter().map(|recorded| &recorded.event));
        return Ok(Aggregate { version, state });
    }
    let state = serde_json::from_str(&state).map_err(|error| corrupt(error.into()))?;
    let version = Version::try_from(i64::from(version)).map_err(|error| corrupt(error.into()))?;
    Ok(Aggregate { version, state })
}

/// All events of one order, oldest first.
///
/// # Errors
///
/// The database's, or an event that cannot be decoded.
pub async fn history(
    connection: &mut PgConnection,
    order_id: OrderId,
    default_currency: Currency,
) -> Result<Vec<Recorded<OrderEvent>>, Error> {
    let payloads: Vec<String> = sqlx::query_scalar("select payload from events where order_id = $1 order by version")
        .bind(order_id.0)
        .fetch_all(connection)
        .await?;
    payloads
        .iter()
        .map(|payload| {
            schema::decode(payload.as_bytes(), default_currency)
                .map(|decoded| decoded.recorded)
                .map_err(|error| Error::Corrupt { order_id, source: error.into() })
        })
        .collect()
}

/// Appends events, brings their aggregate rows up to date, fills the outbox and remembers the answers: one statement.
///
/// Returns the transaction's id, by which its end is proven.
pub(crate) async fn write(connection: &mut PgConnection, writes: &Writes) -> Result<Xid, Error> {
    let events = EventColumns::of(&writes.events);
    let aggregates = AggregateColumns::of(&writes.aggregates)?;
    let replies = ReplyColumns::of(&writes.replies);
    let xid: String = sqlx::query_scalar(WRITE)
        .bind(&events.order_id)
        .bind(&events.version)
        .bind(&events.event_id)
        .bind(&events.event_type)
        .bind(&events.schema_version)
        .bind(&events.payload)
        .bind(&events.occurred_at)
        .bind(&events.actor)
        .bind(&events.correlation_id)
        .bind(&events.causation_id)
        .bind(&events.traceparent)
        .bind(&aggregates.order_id)
        .bind(&aggregates.version)
        .bind(&aggregates.status)
        .bind(&aggregates.state)
        .bind(Order::STATE_REVISION)
        .bind(&replies.key)
        .bind(&replies.fingerprint)
        .bind(&replies.status)
        .bind(&replies.etag)
        .bind(&replies.location)
        .bind(&replies.body)
        .fetch_one(connection)
        .await?;
    Xid::parse(xid).ok_or_else(|| Error::Database(sqlx::Error::Protocol("a transaction id is not a number".to_owned())))
}

/// An aggregate row exists and is locked by this transaction, or its order is new; a second creation of an order
/// breaks the primary key of `events`.
const WRITE: &str = "
with appended as (
    insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at,
                        actor, correlation_id, causation_id, traceparent)
    select * from unnest($1::uuid[], $2::int4[], $3::uuid[], $4::text[], $5::int2[], $6::text[], $7::timestamptz[],
                         $8::text[], $9::text[], $10::text[], $11::text[])
), queued as (
    insert into outbox (order_id, version)
    select order_id, version from unnest($1::uuid[], $2::int4[]) with ordinality as e(order_id, version, n) order by n
), aggregates as (
    insert into orders (order_id, version, status, state, state_revision)
    select order_id, version, status, state, $16
    from unnest($12::uuid[], $13::int4[], $14::text[], $15::text[]) as a(order_id, version, status, state)
    on conflict (order_id) do update
    set version = excluded.version, status = excluded.status, state = excluded.state,
        state_revision = excluded.state_revision, updated_at = now()
), remembered as (
    insert into idempotency_keys (key, fingerprint, status, etag, location, body)
    select * from unnest($17::text[], $18::bytea[], $19::int2[], $20::text[], $21::text[], $22::text[])
)
select pg_current_xact_id()::text";

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
    version: Vec<i32>,
    status: Vec<&'static str>,
    state: Vec<String>,
}

impl AggregateColumns {
    fn of(aggregates: &HashMap<OrderId, Aggregate>) -> Result<Self, Error> {
        let mut columns = Self::default();
        for (order_id, Aggregate { version, state }) in aggregates {
            let corrupt = |error: serde_json::Error| Error::Corrupt { order_id: *order_id, source: error.into() };
            columns.order_id.push(order_id.0);
            columns.version.push(column_version(*version));
            columns.status.push(state.status().map_or("ABSENT", |status| status.as_str()));
            columns.state.push(serde_json::to_string(state).map_err(corrupt)?);
        }
        Ok(columns)
    }
}

#[derive(Default)]
struct ReplyColumns<'r> {
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
