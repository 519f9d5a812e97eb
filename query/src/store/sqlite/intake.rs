//! What was not applied, for operators: dead letters and waiting events.

use super::Store;
use crate::store::answer::{BACKLOG_COUNT_MAX, Backlog, ListedLetter, ListedParked};
use crate::store::{Error, record};

impl Store {
    pub(crate) async fn backlog(&self) -> Result<Backlog, Error> {
        let most = i64::from(BACKLOG_COUNT_MAX);
        Ok(record::backlog(sqlx::query_as(record::BACKLOG).bind(most).fetch_one(&self.readers).await?))
    }

    pub(crate) async fn dead_letters(&self, limit: u32) -> Result<Vec<ListedLetter>, Error> {
        let records = sqlx::query_as(
            "select topic, partition_id, record_offset, record_key, payload, reason, detail, seen_at \
             from dead_letters order by seen_at desc, topic desc, partition_id desc, record_offset desc limit ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::letter)
    }

    pub(crate) async fn parked(&self, limit: u32) -> Result<Vec<ListedParked>, Error> {
        let records = sqlx::query_as(
            "select order_id, version, cause, topic, partition_id, record_offset, parked_at \
             from parked order by order_id, version, digest limit ?1",
        )
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::listed_parked)
    }
}
