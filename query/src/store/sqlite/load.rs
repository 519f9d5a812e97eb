//! Rows by key, for the projector.

use std::collections::{BTreeMap, BTreeSet};

use domain::{OrderId, Version};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::Transaction;
use crate::batch::Known;
use crate::checkpoint::{Anchor, Checkpoint, Checkpoints, Origin};
use crate::gate::Cause;
use crate::intake::{Digest, Headers, Incoming, Position};
use crate::parked::Parked;
use crate::projection::Totals;
use crate::projections::customers::{CustomerRow, Customers};
use crate::projections::daily_sales::{DailySales, DayRow};
use crate::projections::orders::OrderRow;
use crate::projections::product_demand::{DemandRow, ProductDemand};
use crate::store::{Error, Rows};

impl Transaction<'_> {
    /// Everything that a batch of these records has to know, also about `besides`.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn known(&mut self, incoming: &[Incoming], besides: &[OrderId]) -> Result<Known, Error> {
        let subjects = incoming.iter().filter_map(|incoming| incoming.meaning.subject());
        let orders: BTreeSet<OrderId> =
            subjects.map(|(order_id, _version)| order_id).chain(besides.iter().copied()).collect();
        let mut known = Known { rows: Vec::new(), parked: Vec::new(), ..Known::default() };
        if orders.is_empty() {
            return Ok(known);
        }
        known.rows = self.orders(&orders).await?;
        known.parked = self.parked(&orders).await?;
        let compared = known.compared(incoming);
        if !compared.is_empty() {
            known.digests = self.digests(&compared).await?;
        }
        let published = known.published(incoming);
        if !published.is_empty() {
            known.first_messages = self.first_messages(&published).await?;
        }
        Ok(known)
    }

    async fn orders(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<OrderRow>, Error> {
        let documents: Vec<String> = sqlx::query_scalar(
            "select o.document from json_each(?1) as k cross join orders as o on o.order_id = unhex(k.value)",
        )
        .bind(ids(orders)?)
        .fetch_all(&mut *self.inner)
        .await?;
        let read = |document: &String| OrderRow::from_document(document).map_err(Error::corrupt("an order"));
        documents.iter().map(read).collect()
    }

    async fn parked(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<Parked>, Error> {
        let rows = sqlx::query(
            "select p.order_id, p.version, p.digest, p.cause, p.partition_id, p.record_offset, p.message, p.headers \
             from json_each(?1) as k cross join parked as p on p.order_id = unhex(k.value)",
        )
        .bind(ids(orders)?)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(parked).collect()
    }

    async fn digests(
        &mut self,
        events: &BTreeSet<(OrderId, Version)>,
    ) -> Result<BTreeMap<(OrderId, Version), Digest>, Error> {
        let keys: Vec<_> = events.iter().map(|(order_id, version)| (hex(*order_id), *version)).collect();
        let rows = sqlx::query(
            "select h.order_id, h.version, h.digest from json_each(?1) as k \
             cross join order_history as h on h.order_id = unhex(k.value ->> 0) and h.version = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(&keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| Ok(((order_id(row, 0)?, version(row, 1)?), digest(row, 2)?))).collect()
    }

    async fn first_messages(&mut self, orders: &BTreeSet<OrderId>) -> Result<BTreeMap<OrderId, String>, Error> {
        let rows = sqlx::query(
            "select h.order_id, h.message from json_each(?1) as k \
             cross join order_history as h on h.order_id = unhex(k.value) and h.version = 1",
        )
        .bind(ids(orders)?)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| Ok((order_id(row, 0)?, row.try_get(1)?))).collect()
    }

    /// The rows of these customers, as far as there are any.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn customers(&mut self, keys: &[<Customers as Totals>::Key]) -> Result<Rows<Customers>, Error> {
        let rows = sqlx::query(
            "select c.customer_id, c.currency, c.orders, c.cancellations, c.spend_minor, c.last_order_at, \
             c.last_order_id from json_each(?1) as k cross join customers as c \
             on c.customer_id = (k.value ->> 0) and c.currency = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        let read = |row: &SqliteRow| {
            let key = (parse(row, 0, "a customer")?, parse(row, 1, "a customer's currency")?);
            let value = CustomerRow {
                orders: row.try_get(2)?,
                cancellations: row.try_get(3)?,
                spend: parse(row, 4, "a customer's spend")?,
                last_order: (row.try_get(5)?, order_id(row, 6)?),
            };
            Ok((key, value))
        };
        rows.iter().map(read).collect()
    }

    /// The rows of these days, as far as there are any.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn daily_sales(&mut self, keys: &[<DailySales as Totals>::Key]) -> Result<Rows<DailySales>, Error> {
        let rows = sqlx::query(
            "select d.day, d.currency, d.orders, d.cancellations, d.revenue_minor from json_each(?1) as k \
             cross join daily_sales as d on d.day = (k.value ->> 0) and d.currency = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        let read = |row: &SqliteRow| {
            let key = (row.try_get(0)?, parse(row, 1, "a day's currency")?);
            let revenue = parse(row, 4, "a day's revenue")?;
            Ok((key, DayRow { orders: row.try_get(2)?, cancellations: row.try_get(3)?, revenue }))
        };
        rows.iter().map(read).collect()
    }

    /// The rows of these products, as far as there are any.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn product_demand(
        &mut self,
        keys: &[<ProductDemand as Totals>::Key],
    ) -> Result<Rows<ProductDemand>, Error> {
        let rows = sqlx::query(
            "select p.sku, p.currency, p.units, p.revenue_minor from json_each(?1) as k \
             cross join product_demand as p on p.sku = (k.value ->> 0) and p.currency = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        let read = |row: &SqliteRow| {
            let key = (parse(row, 0, "a product")?, parse(row, 1, "a product's currency")?);
            Ok((key, DemandRow { units: row.try_get(2)?, revenue: parse(row, 3, "a product's revenue")? }))
        };
        rows.iter().map(read).collect()
    }

    /// How far each partition is applied.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn checkpoints(&mut self) -> Result<Checkpoints, Error> {
        let rows = sqlx::query(
            "select partition_id, topic, cluster_id, next_offset, digest, proven_offset, proven_digest \
             from checkpoints order by partition_id",
        )
        .fetch_all(&mut *self.inner)
        .await?;
        let mut checkpoints = Checkpoints::default();
        for row in &rows {
            checkpoints.of = Some(Origin { topic: row.try_get(1)?, cluster_id: row.try_get(2)? });
            let next_offset: i64 = row.try_get(3)?;
            checkpoints.partitions.push(Checkpoint {
                partition: row.try_get(0)?,
                last: Anchor { offset: next_offset - 1, digest: digest(row, 4)? },
                proven: Anchor { offset: row.try_get(5)?, digest: digest(row, 6)? },
            });
        }
        Ok(checkpoints)
    }

    /// The orders after `after` that wait for a newer program, by id, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn orders_waiting_for_newer(
        &mut self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, Error> {
        let after = after.map_or_else(Vec::new, |order_id| order_id.0.as_bytes().to_vec());
        let rows = sqlx::query(
            "select distinct order_id from parked where cause = 'newer' and order_id > ?1 order by order_id limit ?2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&mut *self.inner)
        .await?;
        rows.iter().map(|row| order_id(row, 0)).collect()
    }

    /// How many events wait.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn parked_count(&mut self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("select count(*) from parked").fetch_one(&mut *self.inner).await?)
    }
}

fn parked(row: &SqliteRow) -> Result<Parked, Error> {
    let cause: String = row.try_get(3)?;
    let headers: String = row.try_get(7)?;
    let unknown = || format!("the unknown cause `{cause}`");
    Ok(Parked {
        order_id: order_id(row, 0)?,
        version: version(row, 1)?,
        digest: digest(row, 2)?,
        cause: Cause::parse(&cause).ok_or_else(unknown).map_err(Error::corrupt("a waiting event"))?,
        position: Position { partition: row.try_get(4)?, offset: row.try_get(5)? },
        message: row.try_get(6)?,
        headers: Headers::from_json(&headers),
    })
}

/// Ids as SQLite's `unhex` takes them.
pub(super) fn hex(order_id: OrderId) -> String {
    order_id.0.simple().to_string()
}

fn ids(orders: &BTreeSet<OrderId>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&orders.iter().copied().map(hex).collect::<Vec<_>>())
}

pub(super) fn order_id(row: &SqliteRow, column: usize) -> Result<OrderId, Error> {
    let bytes: &[u8] = row.try_get(column)?;
    Uuid::from_slice(bytes).map(OrderId).map_err(Error::corrupt("an id"))
}

pub(super) fn version(row: &SqliteRow, column: usize) -> Result<Version, Error> {
    Version::try_from(row.try_get::<i64, _>(column)?).map_err(Error::corrupt("a version"))
}

fn digest(row: &SqliteRow, column: usize) -> Result<Digest, Error> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(Error::corrupt::<std::array::TryFromSliceError>("a digest"))
}

pub(super) fn parse<T>(row: &SqliteRow, column: usize, what: &'static str) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: &str = row.try_get(column)?;
    text.parse().map_err(Error::corrupt::<T::Err>(what))
}
