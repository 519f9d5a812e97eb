//! The changes as they were applied. The statements are the same in either database, so they are written once.

use std::collections::BTreeMap;

use domain::order::Status;

use super::answer::{Change, LastChange};
use super::record::{self, Id};
use super::{Changes, Error};
use crate::live::place::{Anchor, Place};

/// `seq, partition_id, record_offset, n, order_id, version, status, event_id, event_type, message, customer_id`.
pub(super) type ChangeRecord = (i64, i32, i64, i64, Id, i64, String, Id, String, String, String);
/// `partition_id, record_offset, n, seq, event_id`.
pub(super) type LastRecord = (i32, i64, i64, i64, Id);
/// `partition_id, record_offset, n`.
pub(super) type PlaceRecord = (i32, i64, i64);

/// Partitions in one question: SQLite takes no more than 500 terms of a union.
pub(super) const PARTITIONS_MAX: usize = 100;

/// How many changes go for each one that comes while more are kept than should be.
const TRIM_FACTOR: i64 = 2;

/// The event at a place.
pub(super) const EVENT_AT: &str = "select h.event_id from changes as c join order_history as h using \
    (order_id, version) where c.partition_id = $1 and c.record_offset = $2 and c.n = $3";
/// The last change of a partition.
pub(super) const LAST: &str = "select c.partition_id, c.record_offset, c.n, c.seq, h.event_id from changes as c \
    join order_history as h using (order_id, version) where c.partition_id = $1 \
    order by c.record_offset desc, c.n desc limit 1";
/// From where on everything is kept.
pub(super) const KEPT: &str = "select partition_id, record_offset, n from changes_kept";
/// The last number given out.
pub(super) const HEAD: &str = "select max(seq) from changes";
/// The oldest changes go.
pub(super) const TRIM: &str = "delete from changes where seq in \
    (select seq from changes where seq <= $1 order by seq limit $2) returning partition_id, record_offset, n";
/// What went is not kept.
pub(super) const TRIMMED: &str = "insert into changes_kept (partition_id, record_offset, n) values ($1, $2, $3) \
    on conflict (partition_id) do update set record_offset = excluded.record_offset, n = excluded.n";

/// The questions of a stream.
macro_rules! ask_for_changes {
    ($store:ty, $database:ty) => {
        impl $store {
            pub(crate) async fn changes(&self, from: &BTreeMap<i32, Place>, limit: u32) -> Result<Vec<Change>, Error> {
                // What comes between two questions would be told out of order.
                let several = from.len() > PARTITIONS_MAX;
                let head = if several { self.head().await?.unwrap_or(0) } else { i64::MAX };
                let from: Vec<(i32, Place)> = from.iter().map(|(partition, place)| (*partition, *place)).collect();
                let mut found = Vec::new();
                for from in from.chunks(PARTITIONS_MAX) {
                    found.extend(self.changes_of(from, head, limit).await?);
                }
                found.sort_by_key(|change: &Change| change.seq);
                Ok(found)
            }

            async fn changes_of(&self, from: &[(i32, Place)], head: i64, limit: u32) -> Result<Vec<Change>, Error> {
                let mut query = QueryBuilder::<$database>::new(
                    "select c.seq, c.partition_id, c.record_offset, c.n, c.order_id, c.version, c.status, h.event_id, \
                     h.event_type, h.message, o.customer_id from (",
                );
                for (at, (partition, place)) in from.iter().enumerate() {
                    query.push(if at == 0 { "" } else { " union all " });
                    query.push("select * from (select * from changes where partition_id = ").push_bind(*partition);
                    query.push(" and (record_offset, n) >= (").push_bind(place.offset).push(", ").push_bind(place.n);
                    query
                        .push(") and +seq <= ")
                        .push_bind(head)
                        .push(" order by record_offset, n limit ")
                        .push_bind(i64::from(limit))
                        .push(") as p");
                }
                query.push(
                    ") as c join order_history as h on h.order_id = c.order_id and h.version = c.version \
                     join orders as o on o.order_id = c.order_id order by c.seq",
                );
                let records: Vec<ChangeRecord> = query.build_query_as().fetch_all(&self.readers).await?;
                record::all(records, change)
            }

            pub(crate) async fn event_at(&self, partition: i32, place: Place) -> Result<Option<Uuid>, Error> {
                let found: Option<Id> = sqlx::query_scalar(EVENT_AT)
                    .bind(partition)
                    .bind(place.offset)
                    .bind(place.n)
                    .fetch_optional(&self.readers)
                    .await?;
                found.map(|id| Ok(record::order_id(id)?.0)).transpose()
            }

            pub(crate) async fn last_change(&self, partition: i32) -> Result<Option<LastChange>, Error> {
                let found = sqlx::query_as(LAST).bind(partition).fetch_optional(&self.readers).await?;
                found.map(last).transpose()
            }

            pub(crate) async fn kept(&self) -> Result<BTreeMap<i32, Place>, Error> {
                let records: Vec<PlaceRecord> = sqlx::query_as(KEPT).fetch_all(&self.readers).await?;
                Ok(records.into_iter().map(place).collect())
            }

            pub(crate) async fn head(&self) -> Result<Option<i64>, Error> {
                Ok(sqlx::query_scalar(HEAD).fetch_one(&self.readers).await?)
            }
        }
    };
}

/// The projector's part, for which each store brings its own `asking`.
macro_rules! keep_changes {
    ($transaction:ty) => {
        impl $transaction {
            pub(crate) async fn last_change(&mut self, partition: i32) -> Result<Option<LastChange>, Error> {
                let found = asking::query_as(LAST).bind(partition).fetch_optional(&mut *self.inner).await?;
                found.map(last).transpose()
            }

            pub(crate) async fn kept(&mut self) -> Result<BTreeMap<i32, Place>, Error> {
                let records: Vec<PlaceRecord> = asking::query_as(KEPT).fetch_all(&mut *self.inner).await?;
                Ok(records.into_iter().map(place).collect())
            }

            pub(super) async fn trim_changes(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
                let head: Option<i64> = asking::query_scalar(HEAD).fetch_one(&mut *self.inner).await?;
                let gone: Vec<PlaceRecord> = asking::query_as(TRIM)
                    .bind(head.unwrap_or(0) - kept_max(changes))
                    .bind(trim_max(changes))
                    .fetch_all(&mut *self.inner)
                    .await?;
                for (partition, from) in kept_after(gone) {
                    asking::query(TRIMMED)
                        .bind(partition)
                        .bind(from.offset)
                        .bind(from.n)
                        .execute(&mut *self.inner)
                        .await?;
                }
                Ok(())
            }

            pub(crate) async fn start_at(&mut self, checkpoints: &Checkpoints) -> Result<(), Error> {
                self.save_checkpoints(checkpoints).await?;
                for checkpoint in &checkpoints.partitions {
                    asking::query(TRIMMED)
                        .bind(checkpoint.partition)
                        .bind(checkpoint.next_offset())
                        .bind(0_i64)
                        .execute(&mut *self.inner)
                        .await?;
                }
                Ok(())
            }

            pub(super) async fn forget_changes(&mut self) -> Result<(), Error> {
                for statement in ["delete from changes", "delete from changes_kept"] {
                    asking::query(statement).execute(&mut *self.inner).await?;
                }
                Ok(())
            }
        }
    };
}

pub(super) use {ask_for_changes, keep_changes};

/// Never less than one: whoever has seen everything must find the last change, to show that it has.
pub(super) fn kept_max(changes: &Changes<'_>) -> i64 {
    i64::from(changes.changes_kept.max(1))
}

/// More go than come, and no more than that: a step of the projection takes no longer for what it removes.
pub(super) fn trim_max(changes: &Changes<'_>) -> i64 {
    i64::try_from(changes.batch.applied.len()).unwrap_or(i64::MAX).saturating_mul(TRIM_FACTOR)
}

/// From where on everything is kept once these are gone, by partition.
pub(super) fn kept_after(gone: Vec<PlaceRecord>) -> BTreeMap<i32, Place> {
    let mut kept = BTreeMap::new();
    for (partition, gone) in gone.into_iter().map(place) {
        let from = kept.entry(partition).or_insert(Place::START);
        *from = gone.after().max(*from);
    }
    kept
}

pub(super) fn place((partition, offset, n): PlaceRecord) -> (i32, Place) {
    (partition, Place { offset, n })
}

pub(super) fn last((partition, offset, n, seq, event_id): LastRecord) -> Result<LastChange, Error> {
    let event_id = record::order_id(event_id)?.0;
    Ok(LastChange { seq, at: Anchor { partition, place: Place { offset, n }, event_id } })
}

pub(super) fn change(record: ChangeRecord) -> Result<Change, Error> {
    let (seq, partition, offset, n, order_id, version, status, event_id, event_type, message, customer_id) = record;
    let unknown = || format!("the unknown status `{status}`");
    Ok(Change {
        seq,
        at: Anchor { partition, place: Place { offset, n }, event_id: record::order_id(event_id)?.0 },
        order_id: record::order_id(order_id)?,
        version: record::version(version)?,
        status: Status::parse(&status).ok_or_else(unknown).map_err(Error::corrupt("a change"))?,
        customer_id: customer_id.parse().map_err(Error::corrupt("a customer"))?,
        event_type,
        message,
    })
}
