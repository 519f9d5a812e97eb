//! The one statement that writes all of a batch.

use std::collections::HashSet;
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use domain::order::Order;
use domain::{OrderId, Version};
use sqlx::PgConnection;
use sqlx::types::Uuid;

use super::{Aggregate, Error, NewEvent, Writes};
use crate::executor::commit::Xid;
use crate::idempotency::{Key, Reply};

/// Appends events, brings their aggregate rows up to date, fills the outbox and remembers the answers: one statement.
///
/// Returns the transaction's id, by which its end is proven.
pub(crate) async fn write(connection: &mut PgConnection, writes: &Writes) -> Result<Xid, Error> {
    let events = EventColumns::of(&writes.events);
    let [new, known] = AggregateColumns::of(writes)?;
    let replies = ReplyColumns::of(&writes.replies);
    let parts = Parts {
        events: !events.order_id.is_empty(),
        new: !new.order_id.is_empty(),
        known: !known.order_id.is_empty(),
        replies: !replies.key.is_empty(),
    };
    let mut query = sqlx::query_scalar(parts.statement());
    if parts.events {
        query = query
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
            .bind(&events.traceparent);
    }
    for (aggregates, any) in [(&new, parts.new), (&known, parts.known)] {
        if any {
            query = query
                .bind(&aggregates.order_id)
                .bind(&aggregates.version)
                .bind(&aggregates.status)
                .bind(&aggregates.state)
                .bind(Order::STATE_REVISION);
        }
    }
    if parts.replies {
        query = query
            .bind(&replies.key)
            .bind(&replies.fingerprint)
            .bind(&replies.status)
            .bind(&replies.etag)
            .bind(&replies.location)
            .bind(&replies.body);
    }
    let xid: String = query.fetch_one(connection).await?;
    Xid::parse(xid).ok_or_else(|| Error::Database(sqlx::Error::Protocol("a transaction id is not a number".to_owned())))
}

/// What there is to write. A part that is empty is not in the statement: its executor would be set up for nothing.
#[derive(Debug, Clone, Copy)]
struct Parts {
    events: bool,
    new: bool,
    known: bool,
    replies: bool,
}

/// One statement for each choice of parts, by [`Parts::number`]: each is planned once in a session.
static STATEMENTS: LazyLock<[String; 16]> = LazyLock::new(|| std::array::from_fn(|n| Parts::of(n).text()));

impl Parts {
    fn of(n: usize) -> Self {
        Self { events: n & 1 != 0, new: n & 2 != 0, known: n & 4 != 0, replies: n & 8 != 0 }
    }

    fn number(self) -> usize {
        let Self { events, new, known, replies } = self;
        usize::from(events) | usize::from(new) << 1 | usize::from(known) << 2 | usize::from(replies) << 3
    }

    fn statement(self) -> &'static str {
        &STATEMENTS[self.number()]
    }

    fn text(self) -> String {
        let (mut parts, mut parameters) = (Vec::new(), 0);
        if self.events {
            let all = arrays(
                &mut parameters,
                &["uuid", "int4", "uuid", "text", "int2", "text", "timestamptz", "text", "text", "text", "text"],
            );
            parts.push(format!(
                "appended as (
                     insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at,
                                         actor, correlation_id, causation_id, traceparent)
                     select * from unnest({all})
                 ), queued as (
                     insert into outbox (order_id, version)
                     select order_id, version
                     from unnest($1::uuid[], $2::int4[]) with ordinality as e(order_id, version, n) order by n
                 )"
            ));
        }
        // A new order has no row: a plain insert, which spares each row the speculative one of `on conflict`. A second
        // creation of an order breaks a primary key.
        for (name, any, conflict) in [("created", self.new, ""), ("advanced", self.known, UPDATE)] {
            if any {
                let all = arrays(&mut parameters, &["uuid", "int4", "text", "text"]);
                parameters += 1;
                parts.push(format!(
                    "{name} as (
                         insert into orders (order_id, version, status, state, state_revision)
                         select order_id, version, status, state, ${parameters}
                         from unnest({all}) as a(order_id, version, status, state) {conflict}
                     )"
                ));
            }
        }
        if self.replies {
            let all = arrays(&mut parameters, &["text", "bytea", "int2", "text", "text", "text"]);
            parts.push(format!(
                "remembered as (
                     insert into idempotency_keys (key, fingerprint, status, etag, location, body)
                     select * from unnest({all})
                 )"
            ));
        }
        let with = if parts.is_empty() { String::new() } else { format!("with {} ", parts.join(", ")) };
        format!("{with}select pg_current_xact_id()::text")
    }
}

/// The row exists and is locked by this transaction.
const UPDATE: &str = "on conflict (order_id) do update
    set version = excluded.version, status = excluded.status, state = excluded.state,
        state_revision = excluded.state_revision, updated_at = now()";

/// The next parameters, as arrays of these types.
fn arrays(parameters: &mut u32, types: &[&str]) -> String {
    let array = |of: &&str| {
        *parameters += 1;
        format!("${parameters}::{of}[]")
    };
    types.iter().map(array).collect::<Vec<_>>().join(", ")
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
    version: Vec<i32>,
    status: Vec<&'static str>,
    state: Vec<String>,
}

impl AggregateColumns {
    /// Those of new orders, and those of orders that have a row.
    fn of(writes: &Writes) -> Result<[Self; 2], Error> {
        let first = writes.events.iter().filter(|event| event.recorded.version == Version::FIRST);
        let created: HashSet<OrderId> = first.map(|event| event.recorded.order_id).collect();
        let [mut new, mut known] = [Self::default(), Self::default()];
        for (order_id, aggregate) in &writes.aggregates {
            let columns = if created.contains(order_id) { &mut new } else { &mut known };
            columns.push(*order_id, aggregate)?;
        }
        Ok([new, known])
    }

    fn push(&mut self, order_id: OrderId, Aggregate { version, state }: &Aggregate) -> Result<(), Error> {
        let corrupt = |error: serde_json::Error| Error::Corrupt { order_id, source: error.into() };
        self.order_id.push(order_id.0);
        self.version.push(column_version(*version));
        self.status.push(state.status().map_or("ABSENT", |status| status.as_str()));
        self.state.push(serde_json::to_string(state).map_err(corrupt)?);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_choice_of_parts_numbers_its_parameters_from_one() {
        for n in 0..16 {
            let parts = Parts::of(n);
            assert_eq!(parts.number(), n);
            let bound = usize::from(parts.events) * 11
                + (usize::from(parts.new) + usize::from(parts.known)) * 5
                + usize::from(parts.replies) * 6;
            for parameter in 1..=bound {
                assert!(parts.statement().contains(&format!("${parameter}")), "{n}: ${parameter}");
            }
            assert!(!parts.statement().contains(&format!("${}", bound + 1)), "{n}");
        }
    }
}
