//! What was not applied, for operators: dead letters and waiting events.

use domain::{OrderId, Version};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::Store;
use super::load::{order_id, version};
use crate::intake::Position;
use crate::store::Error;

/// A dead letter as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLetter {
    /// Where it stood.
    pub topic: String,
    /// Where it stood.
    pub position: Position,
    /// Its key, as far as it is text.
    pub key: Option<String>,
    /// Its value, as far as it is text.
    pub payload: Option<String>,
    /// The stable code of the reason.
    pub reason: String,
    /// The reason in words.
    pub detail: String,
    /// When it was set aside, in microseconds.
    pub seen_at_micros: i64,
}

/// A waiting event as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedParked {
    /// Whose event.
    pub order_id: OrderId,
    /// Which of its events.
    pub version: Version,
    /// Why it waits.
    pub cause: String,
    /// Where it stood.
    pub topic: String,
    /// Where it stood.
    pub position: Position,
    /// Since when it waits, in microseconds.
    pub parked_at_micros: i64,
}

impl Store {
    /// The newest `limit` dead letters.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn dead_letters(&self, limit: u32) -> Result<Vec<ListedLetter>, Error> {
        let rows = sqlx::query(
            "select topic, partition_id, record_offset, record_key, payload, reason, detail, seen_at \
             from dead_letters order by seen_at desc, topic, partition_id, record_offset desc limit ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let read = |row: &SqliteRow| {
            Ok(ListedLetter {
                topic: row.try_get(0)?,
                position: Position { partition: row.try_get(1)?, offset: row.try_get(2)? },
                key: text(row.try_get(3)?),
                payload: text(row.try_get(4)?),
                reason: row.try_get(5)?,
                detail: row.try_get(6)?,
                seen_at_micros: row.try_get(7)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The first `limit` waiting events, by order and version.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn parked(&self, limit: u32) -> Result<Vec<ListedParked>, Error> {
        let rows = sqlx::query(
            "select order_id, version, cause, topic, partition_id, record_offset, parked_at \
             from parked order by order_id, version, digest limit ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &SqliteRow| {
            Ok(ListedParked {
                order_id: order_id(row, 0)?,
                version: version(row, 1)?,
                cause: row.try_get(2)?,
                topic: row.try_get(3)?,
                position: Position { partition: row.try_get(4)?, offset: row.try_get(5)? },
                parked_at_micros: row.try_get(6)?,
            })
        };
        rows.iter().map(read).collect()
    }
}
