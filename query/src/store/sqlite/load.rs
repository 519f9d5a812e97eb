//! Rows by key, for the projector.

use std::collections::{BTreeMap, BTreeSet};

use domain::{OrderId, Version};

use super::Transaction;
use crate::checkpoint::Checkpoints;
use crate::intake::Digest;
use crate::parked::Parked;
use crate::projection::Totals;
use crate::projections::cancellations::Cancellations;
use crate::projections::customers::Customers;
use crate::projections::daily_sales::DailySales;
use crate::projections::orders::OrderRow;
use crate::projections::product_demand::ProductDemand;
use crate::store::record::{self, CancellationRecord, CustomerRecord, DayRecord, Id, ParkedRecord, ProductRecord};
use crate::store::{Error, Rows};

/// The checkpoints, for the projector and for whoever watches it.
pub(super) const CHECKPOINTS: &str = "select partition_id, topic, cluster_id, next_offset, digest, proven_offset, \
    proven_digest from checkpoints order by partition_id";

impl Transaction<'_> {
    pub(crate) async fn orders(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<OrderRow>, Error> {
        let documents = sqlx::query_scalar(
            "select o.document from json_each(?1) as k cross join orders as o on o.order_id = unhex(k.value)",
        )
        .bind(ids(orders)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(documents, record::order)
    }

    pub(crate) async fn parked(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<(Parked, bool)>, Error> {
        let records: Vec<ParkedRecord> = sqlx::query_as(
            "select p.order_id, p.version, p.digest, p.cause, p.partition_id, p.record_offset, p.message, p.headers, \
             p.discarded_at is not null from json_each(?1) as k cross join parked as p on p.order_id = unhex(k.value)",
        )
        .bind(ids(orders)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::parked)
    }

    pub(crate) async fn digests(
        &mut self,
        events: &BTreeSet<(OrderId, Version)>,
    ) -> Result<BTreeMap<(OrderId, Version), Digest>, Error> {
        let keys: Vec<_> = events.iter().map(|(order_id, version)| (hex(*order_id), *version)).collect();
        let records: Vec<(Id, i64, Vec<u8>)> = sqlx::query_as(
            "select h.order_id, h.version, h.digest from json_each(?1) as k \
             cross join order_history as h on h.order_id = unhex(k.value ->> 0) and h.version = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(&keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::known_digest)
    }

    pub(crate) async fn first_messages(
        &mut self,
        orders: &BTreeSet<OrderId>,
    ) -> Result<BTreeMap<OrderId, String>, Error> {
        let records: Vec<(Id, String)> = sqlx::query_as(
            "select h.order_id, h.message from json_each(?1) as k \
             cross join order_history as h on h.order_id = unhex(k.value) and h.version = 1",
        )
        .bind(ids(orders)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::known_message)
    }

    pub(crate) async fn customers(&mut self, keys: &[<Customers as Totals>::Key]) -> Result<Rows<Customers>, Error> {
        let records: Vec<CustomerRecord> = sqlx::query_as(
            "select c.customer_id, c.currency, c.orders, c.cancellations, c.spend_minor, c.last_order_at, \
             c.last_order_id from json_each(?1) as k cross join customers as c \
             on c.customer_id = (k.value ->> 0) and c.currency = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::customer)
    }

    pub(crate) async fn daily_sales(
        &mut self,
        keys: &[<DailySales as Totals>::Key],
    ) -> Result<Rows<DailySales>, Error> {
        let records: Vec<DayRecord> = sqlx::query_as(
            "select d.day, d.currency, d.orders, d.cancellations, d.revenue_minor from json_each(?1) as k \
             cross join daily_sales as d on d.day = (k.value ->> 0) and d.currency = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::day)
    }

    pub(crate) async fn product_demand(
        &mut self,
        keys: &[<ProductDemand as Totals>::Key],
    ) -> Result<Rows<ProductDemand>, Error> {
        let records: Vec<ProductRecord> = sqlx::query_as(
            "select p.sku, p.currency, p.units, p.revenue_minor from json_each(?1) as k \
             cross join product_demand as p on p.sku = (k.value ->> 0) and p.currency = (k.value ->> 1)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::product)
    }

    pub(crate) async fn cancellations(
        &mut self,
        keys: &[<Cancellations as Totals>::Key],
    ) -> Result<Rows<Cancellations>, Error> {
        let records: Vec<CancellationRecord> = sqlx::query_as(
            "select c.day, c.customer_id, c.reason, c.orders from json_each(?1) as k cross join cancellations as c \
             on c.day = (k.value ->> 0) and c.customer_id = (k.value ->> 1) and c.reason = (k.value ->> 2)",
        )
        .bind(serde_json::to_string(keys)?)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::cancellation)
    }

    pub(crate) async fn checkpoints(&mut self) -> Result<Checkpoints, Error> {
        record::checkpoints(sqlx::query_as(CHECKPOINTS).fetch_all(&mut *self.inner).await?)
    }

    pub(crate) async fn orders_waiting_for_newer(
        &mut self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, Error> {
        let after = after.map_or_else(Vec::new, |order_id| order_id.0.as_bytes().to_vec());
        let ids: Vec<Id> = sqlx::query_scalar(
            "select distinct order_id from parked where cause = 'newer' and discarded_at is null and order_id > ?1 order by order_id limit ?2",
        )
        .bind(after)
        .bind(limit)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(ids, record::order_id)
    }

    pub(crate) async fn parked_count(&mut self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("select count(*) from parked where discarded_at is null")
            .fetch_one(&mut *self.inner)
            .await?)
    }
}

/// Ids as SQLite's `unhex` takes them.
pub(super) fn hex(order_id: OrderId) -> String {
    order_id.0.simple().to_string()
}

fn ids(orders: &BTreeSet<OrderId>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&orders.iter().copied().map(hex).collect::<Vec<_>>())
}
