//! The rows of a generation, one after another, and what they add up to: a digest that is the same for the same rows in
//! either database and in whatever order they are read.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::record::Id;

/// `order_id, customer_id, status, currency, total_minor, version, created_at, document`.
pub(crate) type OrderTuple = (Id, String, String, String, i64, i64, i64, String);
/// `order_id, version, event_id, event_type, occurred_at, digest, message, actor, correlation_id, causation_id`.
pub(crate) type HistoryTuple = (Id, i64, Id, String, i64, Id, String, Option<String>, Option<String>, Option<String>);
/// `customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id`.
pub(crate) type CustomerTuple = (String, String, i64, i64, String, i64, Id);
/// `day, currency, orders, cancellations, revenue_minor`.
pub(crate) type DayTuple = (i64, String, i64, i64, String);
/// `sku, currency, units, revenue_minor`.
pub(crate) type DemandTuple = (String, String, i64, String);
/// `sku, created_at, order_id, currency, total_minor`.
pub(crate) type OrderProductTuple = (String, i64, Id, String, i64);
/// `day, customer_id, reason, orders`.
pub(crate) type CancellationTuple = (i64, String, String, i64);

pub(super) const ORDERS: &str =
    "select order_id, customer_id, status, currency, total_minor, version, created_at, document from orders";
pub(super) const HISTORY: &str = "select order_id, version, event_id, event_type, occurred_at, digest, message, actor, \
    correlation_id, causation_id from order_history order by order_id, version";
pub(super) const CUSTOMERS: &str = "select customer_id, currency, orders, cancellations, spend_minor, last_order_at, \
    last_order_id from customers";
pub(super) const DAYS: &str = "select day, currency, orders, cancellations, revenue_minor from daily_sales";
pub(super) const DEMAND: &str = "select sku, currency, units, revenue_minor from product_demand";
pub(super) const CANCELLATIONS: &str = "select day, customer_id, reason, orders from cancellations";
pub(super) const ORDER_PRODUCTS: &str = "select sku, created_at, order_id, currency, total_minor from order_products";
pub(super) const VERSIONS: &str = "select order_id, version from orders where order_id > $1 order by order_id limit $2";
pub(super) const STOPPED: &str = "select distinct order_id from parked";

/// Rows, and the sum of their hashes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableDigest {
    /// How many.
    pub rows: u64,
    /// The sum, modulo 2^128, of the first 16 bytes of the SHA-256 of each row.
    pub sum: u128,
}

impl TableDigest {
    /// One more row.
    pub(crate) fn add(&mut self, row: &impl Serialize) -> Result<(), serde_json::Error> {
        let hash = Sha256::digest(serde_json::to_vec(row)?);
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(first));
        Ok(())
    }
}

/// The digest of every table of a generation that projections fill, by name.
pub type Digests = BTreeMap<&'static str, TableDigest>;

/// The walks over the tables, in one snapshot.
macro_rules! walk_tables {
    ($store:ty) => {
        impl $store {
            pub(crate) async fn digests(&self) -> Result<Digests, Error> {
                let mut snapshot = self.readers.begin().await?;
                for statement in SNAPSHOT {
                    sqlx::query(*statement).execute(&mut *snapshot).await?;
                }
                let mut digests = Digests::new();
                walk_tables!(@table digests, snapshot, "orders", OrderTuple, ORDERS);
                walk_tables!(@table digests, snapshot, "order_history", HistoryTuple, HISTORY);
                walk_tables!(@table digests, snapshot, "customers", CustomerTuple, CUSTOMERS);
                walk_tables!(@table digests, snapshot, "daily_sales", DayTuple, DAYS);
                walk_tables!(@table digests, snapshot, "product_demand", DemandTuple, DEMAND);
                walk_tables!(@table digests, snapshot, "order_products", OrderProductTuple, ORDER_PRODUCTS);
                walk_tables!(@table digests, snapshot, "cancellations", CancellationTuple, CANCELLATIONS);
                Ok(digests)
            }

            pub(crate) async fn walk_history(
                &self,
                mut see: impl FnMut(HistoryTuple) -> Result<(), Error> + Send,
            ) -> Result<(), Error> {
                walk_tables!(@walk self, HISTORY, see)
            }

            pub(crate) async fn walk_orders(
                &self,
                mut see: impl FnMut(OrderTuple) -> Result<(), Error> + Send,
            ) -> Result<(), Error> {
                walk_tables!(@walk self, ORDERS, see)
            }

            pub(crate) async fn versions_after(
                &self,
                after: Option<OrderId>,
                limit: u32,
            ) -> Result<Vec<(OrderId, Version)>, Error> {
                let after = after.map_or_else(Vec::new, |order_id| order_id.0.as_bytes().to_vec());
                let question = sqlx::query_as(VERSIONS).bind(after).bind(i64::from(limit));
                record::all(question.fetch_all(&self.readers).await?, record::known_version)
            }

            pub(crate) async fn stopped_orders(&self) -> Result<BTreeSet<OrderId>, Error> {
                let ids: Vec<Id> = sqlx::query_scalar(STOPPED).fetch_all(&self.readers).await?;
                record::all(ids, record::order_id)
            }
        }
    };
    (@table $digests:ident, $snapshot:ident, $name:literal, $tuple:ty, $statement:expr) => {
        let mut digest = TableDigest::default();
        let mut rows = sqlx::query_as::<_, $tuple>($statement).fetch(&mut *$snapshot);
        while let Some(row) = rows.try_next().await? {
            digest.add(&row)?;
        }
        drop(rows);
        $digests.insert($name, digest);
    };
    (@walk $self:ident, $statement:expr, $see:ident) => {{
        let mut snapshot = $self.readers.begin().await?;
        for statement in SNAPSHOT {
            sqlx::query(*statement).execute(&mut *snapshot).await?;
        }
        let mut rows = sqlx::query_as($statement).fetch(&mut *snapshot);
        while let Some(row) = rows.try_next().await? {
            $see(row)?;
        }
        Ok(())
    }};
}

pub(super) use walk_tables;
