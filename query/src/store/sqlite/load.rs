//! Rows by key, for the projector: a prepared look-up per key, in the order of the keys.

use std::collections::{BTreeMap, BTreeSet};

use domain::{OrderId, Version};
use rusqlite::{CachedStatement, Connection, Row, params};

use super::Transaction;
use super::ask::{query, query_as, query_scalar};
use crate::checkpoint::Checkpoints;
use crate::intake::Digest;
use crate::parked::Parked;
use crate::projection::Totals;
use crate::projections::cancellations::Cancellations;
use crate::projections::customers::Customers;
use crate::projections::daily_sales::DailySales;
use crate::projections::orders::OrderRow;
use crate::projections::product_demand::ProductDemand;
use crate::store::record::{self, Id};
use crate::store::{Error, Rows};

/// The checkpoints, for the projector and for whoever watches it.
pub(super) const CHECKPOINTS: &str = "select partition_id, topic, cluster_id, next_offset, digest, proven_offset, \
    proven_digest from checkpoints order by partition_id";

impl Transaction<'_> {
    pub(crate) async fn orders(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<OrderRow>, Error> {
        let statement = "select document from orders where order_id = ?1";
        let read = |(document,): (String,)| record::order(document);
        each(&self.inner, statement, orders, |asked, id| asked.query([id.0.as_bytes()]), read)
    }

    pub(crate) async fn parked(&mut self, orders: &BTreeSet<OrderId>) -> Result<Vec<(Parked, bool)>, Error> {
        // Hardly ever is there any, and then no order needs to be looked up.
        if query_scalar("select not exists (select 1 from parked)").fetch_one(&mut self.inner).await? {
            return Ok(Vec::new());
        }
        let statement = "select order_id, version, digest, cause, partition_id, record_offset, message, headers, \
            discarded_at is not null from parked where order_id = ?1";
        each(&self.inner, statement, orders, |asked, id| asked.query([id.0.as_bytes()]), record::parked)
    }

    pub(crate) async fn digests(
        &mut self,
        events: &BTreeSet<(OrderId, Version)>,
    ) -> Result<BTreeMap<(OrderId, Version), Digest>, Error> {
        let statement = "select order_id, version, digest from order_history where order_id = ?1 and version = ?2";
        each(
            &self.inner,
            statement,
            events,
            |asked, (id, version)| asked.query(params![id.0.as_bytes(), version.0]),
            record::known_digest,
        )
    }

    pub(crate) async fn first_messages(
        &mut self,
        orders: &BTreeSet<OrderId>,
    ) -> Result<BTreeMap<OrderId, String>, Error> {
        let statement = "select order_id, message from order_history where order_id = ?1 and version = 1";
        each(&self.inner, statement, orders, |asked, id| asked.query([id.0.as_bytes()]), record::known_message)
    }

    pub(crate) async fn customers(&mut self, keys: &[<Customers as Totals>::Key]) -> Result<Rows<Customers>, Error> {
        let statement = "select customer_id, currency, orders, cancellations, spend_minor, last_order_at, \
            last_order_id from customers where customer_id = ?1 and currency = ?2";
        each(
            &self.inner,
            statement,
            keys,
            |asked, (customer, currency)| asked.query([customer.as_str(), currency.code()]),
            record::customer,
        )
    }

    pub(crate) async fn daily_sales(
        &mut self,
        keys: &[<DailySales as Totals>::Key],
    ) -> Result<Rows<DailySales>, Error> {
        let statement = "select day, currency, orders, cancellations, revenue_minor from daily_sales \
            where day = ?1 and currency = ?2";
        each(
            &self.inner,
            statement,
            keys,
            |asked, (day, currency)| asked.query(params![day, currency.code()]),
            record::day,
        )
    }

    pub(crate) async fn product_demand(
        &mut self,
        keys: &[<ProductDemand as Totals>::Key],
    ) -> Result<Rows<ProductDemand>, Error> {
        let statement = "select sku, currency, units, revenue_minor from product_demand \
            where sku = ?1 and currency = ?2";
        each(
            &self.inner,
            statement,
            keys,
            |asked, (sku, currency)| asked.query([sku.as_str(), currency.code()]),
            record::product,
        )
    }

    pub(crate) async fn cancellations(
        &mut self,
        keys: &[<Cancellations as Totals>::Key],
    ) -> Result<Rows<Cancellations>, Error> {
        let statement = "select day, customer_id, reason, orders from cancellations \
            where day = ?1 and customer_id = ?2 and reason = ?3";
        each(
            &self.inner,
            statement,
            keys,
            |asked, (day, customer, reason)| asked.query(params![day, customer.as_str(), reason.as_str()]),
            record::cancellation,
        )
    }

    pub(crate) async fn checkpoints(&mut self) -> Result<Checkpoints, Error> {
        record::checkpoints(query_as(CHECKPOINTS).fetch_all(&mut self.inner).await?)
    }

    pub(crate) async fn orders_waiting_for_newer(
        &mut self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, Error> {
        let after = after.map_or_else(Vec::new, |order_id| order_id.0.as_bytes().to_vec());
        let statement = "select distinct order_id from parked where cause = 'newer' and discarded_at is null \
            and order_id > $1 order by order_id limit $2";
        let ids: Vec<Id> = query_scalar(statement).bind(after).bind(limit).fetch_all(&mut self.inner).await?;
        record::all(ids, record::order_id)
    }

    pub(crate) async fn parked_count(&mut self) -> Result<i64, Error> {
        let statement = "select count(*) from parked where discarded_at is null";
        Ok(query_scalar(statement).fetch_one(&mut self.inner).await?)
    }

    pub(crate) async fn forget_checkpoints(&mut self) -> Result<(), Error> {
        query("delete from checkpoints").execute(&mut self.inner).await?;
        self.forget_changes().await
    }
}

/// The rows of every key: `ask` looks one key up, `read` says what a row means.
fn each<'k, K: 'k, R, T, C: FromIterator<T>>(
    connection: &Connection,
    statement: &str,
    keys: impl IntoIterator<Item = &'k K>,
    ask: impl for<'s> Fn(&'s mut CachedStatement<'_>, &K) -> rusqlite::Result<rusqlite::Rows<'s>>,
    read: impl Fn(R) -> Result<T, Error>,
) -> Result<C, Error>
where
    R: for<'r> TryFrom<&'r Row<'r>, Error = rusqlite::Error>,
{
    let mut asked = connection.prepare_cached(statement)?;
    let mut found = Vec::new();
    for key in keys {
        let mut rows = ask(&mut asked, key)?;
        while let Some(row) = rows.next()? {
            found.push(read(R::try_from(row)?)?);
        }
    }
    Ok(found.into_iter().collect())
}

/// Ids as SQLite's `unhex` takes them.
pub(super) fn hex(order_id: OrderId) -> String {
    order_id.0.simple().to_string()
}
