//! The columns of what was not applied and of wishes, and what they mean.

use rusqlite::Row;

use crate::intake::{Digest, Headers, Position, Record};
use crate::intervention::{Intervention, LetterKey, Outcome};
use crate::store::Error;
use crate::store::answer::{Discarded, ListedLetter, ListedParked};
use crate::store::record::{digest, order_id, version};

/// The columns of a dead letter.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::store) struct LetterRow {
    topic: String,
    partition_id: i32,
    record_offset: i64,
    digest: Vec<u8>,
    record_key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: String,
    reason: String,
    detail: String,
    seen_at: i64,
    discarded_at: Option<i64>,
    discard_reason: Option<String>,
}

/// The columns of a waiting event.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::store) struct ParkedRow {
    order_id: Vec<u8>,
    version: i64,
    digest: Vec<u8>,
    cause: String,
    topic: String,
    partition_id: i32,
    record_offset: i64,
    message: String,
    headers: String,
    parked_at: i64,
    discarded_at: Option<i64>,
    discard_reason: Option<String>,
}

/// The columns of an intervention.
#[derive(Debug, sqlx::FromRow)]
pub(in crate::store) struct InterventionRow {
    id: Vec<u8>,
    kind: String,
    target: String,
    reason: Option<String>,
    actor: Option<String>,
    requested_at: i64,
    reached: Option<String>,
    outcome: Option<String>,
    done_at: Option<i64>,
}

/// The same columns from the writer's connection, by name.
macro_rules! from_row {
    ($row:ident { $($column:ident),+ }) => {
        impl TryFrom<&Row<'_>> for $row {
            type Error = rusqlite::Error;
            fn try_from(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
                Ok(Self { $($column: row.get(stringify!($column))?),+ })
            }
        }
    };
}

from_row!(LetterRow {
    topic,
    partition_id,
    record_offset,
    digest,
    record_key,
    payload,
    headers,
    reason,
    detail,
    seen_at,
    discarded_at,
    discard_reason
});
from_row!(ParkedRow {
    order_id,
    version,
    digest,
    cause,
    topic,
    partition_id,
    record_offset,
    message,
    headers,
    parked_at,
    discarded_at,
    discard_reason
});
from_row!(InterventionRow { id, kind, target, reason, actor, requested_at, reached, outcome, done_at });

/// A dead letter with its record.
#[derive(Debug)]
pub struct StoredLetter {
    /// Its name.
    pub key: LetterKey,
    /// The record, as it was read.
    pub record: Record,
    /// Whether an operator discarded it.
    pub discarded: bool,
}

pub(in crate::store) fn letter(row: LetterRow) -> Result<ListedLetter, Error> {
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(ListedLetter {
        topic: row.topic,
        position: Position { partition: row.partition_id, offset: row.record_offset },
        digest: digest(&row.digest)?,
        key: text(row.record_key),
        payload: text(row.payload),
        headers: headers(&row.headers)?,
        reason: row.reason,
        detail: row.detail,
        seen_at_micros: row.seen_at,
        discarded: put_away(row.discarded_at, row.discard_reason),
    })
}

pub(in crate::store) fn stored(row: LetterRow) -> Result<StoredLetter, Error> {
    let position = Position { partition: row.partition_id, offset: row.record_offset };
    let headers = headers(&row.headers)?;
    let record = Record { position, key: row.record_key, payload: row.payload, headers };
    let key = LetterKey { topic: row.topic, position, digest: digest(&row.digest)? };
    Ok(StoredLetter { key, record, discarded: row.discarded_at.is_some() })
}

pub(in crate::store) fn discarded((partition, offset, hash): (i32, i64, Vec<u8>)) -> Result<(Position, Digest), Error> {
    Ok((Position { partition, offset }, digest(&hash)?))
}

pub(in crate::store) fn parked(row: ParkedRow) -> Result<ListedParked, Error> {
    Ok(ListedParked {
        order_id: order_id(row.order_id)?,
        version: version(row.version)?,
        digest: digest(&row.digest)?,
        cause: row.cause,
        topic: row.topic,
        position: Position { partition: row.partition_id, offset: row.record_offset },
        message: row.message,
        headers: headers(&row.headers)?,
        parked_at_micros: row.parked_at,
        discarded: put_away(row.discarded_at, row.discard_reason),
    })
}

fn headers(text: &str) -> Result<Headers, Error> {
    Headers::from_json(text).map_err(Error::corrupt("the headers of a record"))
}

fn put_away(at_micros: Option<i64>, reason: Option<String>) -> Option<Discarded> {
    at_micros.map(|at_micros| Discarded { at_micros, reason: reason.unwrap_or_default() })
}

pub(in crate::store) fn intervention(row: InterventionRow) -> Result<Intervention, Error> {
    let outcome = row.outcome.as_deref().map(serde_json::from_str::<Outcome>).transpose();
    Ok(Intervention {
        id: order_id(row.id)?.0,
        kind: row.kind,
        target: row.target,
        reason: row.reason,
        actor: row.actor,
        requested_at_micros: row.requested_at,
        reached: row.reached,
        outcome: outcome.map_err(Error::corrupt("the outcome of an intervention"))?.unwrap_or_default(),
        done_at_micros: row.done_at,
    })
}
