//! Where the read models live. A store loads rows by key, writes rows in bulk, and answers the API's questions; it
//! knows no rule of any projection.

pub mod sqlite;

use std::error::Error as StdError;

use thiserror::Error;

use crate::batch::{Batch, ParkedKey};
use crate::checkpoint::Checkpoints;
use crate::parked::Parked;
use crate::projection::Totals;
use crate::projections::customers::Customers;
use crate::projections::daily_sales::DailySales;
use crate::projections::product_demand::ProductDemand;

/// What can go wrong with a store.
#[derive(Debug, Error)]
pub enum Error {
    /// Not a database that can serve.
    #[error("the read model cannot be opened: {reason}")]
    Unusable {
        /// Why.
        reason: String,
    },
    /// The migrations cannot be applied.
    #[error("the read model cannot be migrated")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database refused or failed.
    #[error("the read model cannot be read or written")]
    Database(#[from] sqlx::Error),
    /// A row that we cannot have written.
    #[error("the read model holds a row that cannot be read: {what}")]
    Corrupt {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A row that cannot be written as JSON.
    #[error("a row cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub(crate) fn corrupt<E: Into<Box<dyn StdError + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Corrupt { what, source: source.into() }
    }
}

/// Everything that one batch writes, in one transaction.
#[derive(Debug)]
pub struct Changes<'a> {
    /// Orders, history, dead letters and waiting events.
    pub batch: &'a Batch,
    /// The customers' rows.
    pub customers: &'a Rows<Customers>,
    /// The days' rows.
    pub daily_sales: &'a Rows<DailySales>,
    /// The products' rows.
    pub product_demand: &'a Rows<ProductDemand>,
    /// How far the partitions are applied with this batch.
    pub checkpoints: &'a Checkpoints,
    /// This node's clock, in microseconds; told by what waits and what is set aside, never by a projection.
    pub now_micros: i64,
}

/// Rows of a totals table by key.
pub type Rows<T> = std::collections::BTreeMap<<T as Totals>::Key, <T as Totals>::Row>;

impl Changes<'_> {
    fn newly_parked(&self) -> Vec<&Parked> {
        self.batch.newly_parked().collect()
    }

    fn unparked(&self) -> &[ParkedKey] {
        &self.batch.unparked
    }
}
