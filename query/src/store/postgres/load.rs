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

impl Transaction {
    pub(crate) async fn orders(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<OrderRow>, Error> {
        let documents = sqlx::query_scalar("select document from orders where order_id = any($1)")
            .bind(ids(orders))
            .fetch_all(&mut *self.inner)
            .await?;
        record::all(documents, record::order)
    }

    pub(crate) async fn parked(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<(Parked, bool)>, Error> {
        let records: Vec<ParkedRecord> = sqlx::query_as(
            "select order_id, version, digest, cause, partition_id, record_offset, message, headers, \
             discarded_at is not null from parked where order_id = any($1)",
        )
        .bind(ids(orders))
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::parked)
    }

    pub(crate) async fn digests(
        &mut self,
        events: &BTreeSet<(OrderId, Version)>,
    ) -> Result<BTreeMap<(OrderId, Version), Digest>, Error> {
        let (orders, versions): (Vec<_>, Vec<_>) =
            events.iter().map(|(order_id, version)| (order_id.0.into_bytes(), i64::from(version.0))).unzip();
        let records: Vec<(Id, i64, Vec<u8>)> = sqlx::query_as(
            "select h.order_id, h.version, h.digest from unnest($1::bytea[], $2::bigint[]) as k (order_id, version) \
             join order_history as h using (order_id, version)",
        )
        .bind(orders)
        .bind(versions)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::known_digest)
    }

    pub(crate) async fn first_messages(
        &mut self,
        orders: &BTreeSet<OrderId>,
    ) -> Result<BTreeMap<OrderId, String>, Error> {
        let records: Vec<(Id, String)> =
            sqlx::query_as("select order_id, message from order_history where order_id = any($1) and version = 1")
                .bind(ids(orders))
                .fetch_all(&mut *self.inner)
                .await?;
        record::all(records, record::known_message)
    }

    pub(crate) async fn customers(&mut self, keys: &[<Customers as Totals>::Key]) -> Result<Rows<Customers>, Error> {
        let (customers, currencies): (Vec<_>, Vec<_>) =
            keys.iter().map(|(customer, currency)| (customer.as_str(), currency.code())).unzip();
        let records: Vec<CustomerRecord> = sqlx::query_as(
            "select c.customer_id, c.currency, c.orders, c.cancellations, c.spend_minor, c.last_order_at, \
             c.last_order_id from unnest($1::text[], $2::text[]) as k (customer_id, currency) \
             join customers as c on c.customer_id = k.customer_id and c.currency = k.currency",
        )
        .bind(customers)
        .bind(currencies)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::customer)
    }

    pub(crate) async fn daily_sales(
        &mut self,
        keys: &[<DailySales as Totals>::Key],
    ) -> Result<Rows<DailySales>, Error> {
        let (days, currencies): (Vec<i64>, Vec<_>) = keys.iter().map(|(day, currency)| (day, currency.code())).unzip();
        let records: Vec<DayRecord> = sqlx::query_as(
            "select d.day, d.currency, d.orders, d.cancellations, d.revenue_minor \
             from unnest($1::bigint[], $2::text[]) as k (day, currency) \
             join daily_sales as d on d.day = k.day and d.currency = k.currency",
        )
        .bind(days)
        .bind(currencies)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::day)
    }

    pub(crate) async fn product_demand(
        &mut self,
        keys: &[<ProductDemand as Totals>::Key],
    ) -> Result<Rows<ProductDemand>, Error> {
        let (products, currencies): (Vec<_>, Vec<_>) =
            keys.iter().map(|(sku, currency)| (sku.as_str(), currency.code())).unzip();
        let records: Vec<ProductRecord> = sqlx::query_as(
            "select p.sku, p.currency, p.units, p.revenue_minor \
             from unnest($1::text[], $2::text[]) as k (sku, currency) \
             join product_demand as p on p.sku = k.sku and p.currency = k.currency",
        )
        .bind(products)
        .bind(currencies)
        .fetch_all(&mut *self.inner)
        .await?;
        record::all(records, record::product)
    }

    pub(crate) async fn cancellations(
        &mut self,
        keys: &[<Cancellations as Totals>::Key],
    ) -> Result<Rows<Cancellations>, Error> {
        let records: Vec<CancellationRecord> = sqlx::query_as(
            "select c.day, c.customer_id, c.reason, c.orders \
             from unnest($1::bigint[], $2::text[], $3::text[]) as k (day, customer_id, reason) \
             join cancellations as c using (day, customer_id, reason)",
        )
        .bind(keys.iter().map(|(day, _customer, _reason)| *day).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_day, customer, _reason)| customer.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|(_day, _customer, reason)| reason.as_str()).collect::<Vec<_>>())
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
            "select distinct order_id from parked where cause = 'newer' and discarded_at is null and order_id > $1 order by order_id limit $2",
        )
        .bind(after)
        .bind(i64::from(limit))
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

fn ids(orders: &BTreeSet<OrderId>) -> Vec<[u8; 16]> {
    orders.iter().map(|order_id| order_id.0.into_bytes()).collect()
}
