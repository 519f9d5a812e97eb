//! Where the read models live. A store loads rows by key, writes rows in bulk, and answers the API's questions; it
//! knows no rule of any projection.
//!
//! Two databases can be one: a SQLite file that belongs to this node, or a PostgreSQL database that several nodes share
//! and one of them projects into. The rest of the service sees [`Store`], [`Writer`] and [`Transaction`] and does not
//! ask which it is.

pub mod answer;

pub mod postgres;

pub mod sqlite;

pub(crate) mod list;

mod cancellations;

mod changes;

pub mod desk;

mod intake;

mod record;

mod reading;

mod walking;

mod writing;

mod generations;

mod keeping;

pub mod digest;

pub use generations::Generations;
mod intervening;

pub use intake::rows::StoredLetter;

use std::error::Error as StdError;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chassis::config::Secret;
use thiserror::Error;

use crate::batch::{Batch, ParkedKey};
use crate::checkpoint::Checkpoints;
use crate::generation::FIRST;
use crate::parked::Parked;
use crate::projection::Totals;
use crate::projections::cancellations::Cancellations;
use crate::projections::customers::Customers;
use crate::projections::daily_sales::DailySales;
use crate::projections::order_products::OrderProducts;
use crate::projections::product_demand::ProductDemand;

/// How long a list may take that no index answers, unless the configuration says otherwise.
pub const LIST_BUDGET: Duration = Duration::from_secs(2);

/// The read side: cheap to clone, never writes. Clones are of the same generation: when one is pointed to another, all
/// are, and the next question is answered from there.
#[derive(Debug, Clone)]
pub struct Store {
    tables: Arc<RwLock<Tables>>,
    /// How long a list may take that no index answers.
    list_budget: Duration,
}

/// Where the tables of a generation are read.
#[derive(Debug, Clone)]
pub(crate) enum Tables {
    /// A file of this node.
    Sqlite(sqlite::Store),
    /// A database that nodes share.
    Postgres(postgres::Store),
}

impl Store {
    fn new(tables: Tables) -> Self {
        Self { tables: Arc::new(RwLock::new(tables)), list_budget: LIST_BUDGET }
    }

    /// With so much time for a list that no index answers, and for a count.
    #[must_use]
    pub fn with_list_budget(self, list_budget: Duration) -> Self {
        Self { list_budget, ..self }
    }

    fn tables(&self) -> Tables {
        // An assignment cannot stop half-way.
        self.tables.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Answers from where `other` does, from the next question on; gives back what answered until now.
    #[must_use = "the old one is to be closed"]
    pub fn point_to(&self, other: &Self) -> Self {
        let next = other.tables();
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        Self::new(std::mem::replace(&mut *tables, next))
    }
}

/// The write side. There is one in a process, and one that may write at a time.
#[derive(Debug)]
pub enum Writer {
    /// A file of this node.
    Sqlite(Box<sqlite::Writer>),
    /// A database that nodes share.
    Postgres(postgres::Writer),
}

/// One transaction of the writer. Dropped without a commit, it leaves no trace.
#[derive(Debug)]
pub enum Transaction<'w> {
    /// In a file of this node.
    Sqlite(sqlite::Transaction<'w>),
    /// In a database that nodes share.
    Postgres(postgres::Transaction),
}

/// Whether this node projects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It does, as before.
    Ours,
    /// It does now: others may have written since, so only what the store says counts.
    New,
    /// Another node does, or may.
    NotOurs,
}

/// A store that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The read side.
    pub store: Store,
    /// The write side.
    pub writer: Writer,
    /// Whoever takes the right to write and keeps it, where nodes share the store. Has to run.
    pub keeper: Option<postgres::Keeper>,
}

/// Opens the first generation of the store that `url` names: `sqlite://…` or `postgres://…`.
///
/// # Errors
///
/// When the URL is neither, or the database cannot be used.
pub async fn open(url: &Secret) -> Result<Opened, Error> {
    Generations::at(url)?.open(FIRST).await
}

impl Opened {
    fn sqlite((store, writer): (sqlite::Store, sqlite::Writer)) -> Self {
        Self { store: Store::new(Tables::Sqlite(store)), writer: Writer::Sqlite(Box::new(writer)), keeper: None }
    }

    fn postgres((store, writer, keeper): (postgres::Store, postgres::Writer, postgres::Keeper)) -> Self {
        Self { store: Store::new(Tables::Postgres(store)), writer: Writer::Postgres(writer), keeper: Some(keeper) }
    }
}

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
    /// The server cannot be used.
    #[error("the read model's server cannot be used")]
    Server(#[from] chassis::postgres::Error),
    /// A list did not come to its end in the time that it may take.
    #[error("the list takes longer than it may")]
    OverBudget,
    /// As many long questions are read as may be, and none of them ended in time.
    #[error("no reader for long questions became free in time")]
    LongBusy,
    /// Another node projects now. Nothing of the transaction is kept.
    #[error("another node projects now")]
    Superseded,
    /// The database refused or failed.
    #[error("the read model cannot be read or written")]
    Database(#[from] sqlx::Error),
    /// The file refused or failed.
    #[error("the read model's file cannot be read or written")]
    File(#[from] rusqlite::Error),
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
    /// Whether the same question may be answered when it is asked again: a server restarts, a connection is cut.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => chassis::postgres::is_transient(error),
            Self::File(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ),
            _ => false,
        }
    }

    /// Whether the rows or the file are damaged: asking again does not help, building anew does.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Corrupt { .. } => true,
            Self::Database(sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) => true,
            // Data or an index corrupted.
            Self::Database(sqlx::Error::Database(error)) => {
                matches!(error.code().as_deref(), Some("XX001" | "XX002"))
            }
            Self::File(
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..),
            ) => true,
            Self::File(error) => matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
            ),
            _ => false,
        }
    }

    /// Whether the database refuses a value that it was given, as PostgreSQL does U+0000 (its class 22).
    pub fn is_value_refused(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(error)) => error.code().is_some_and(|code| code.starts_with("22")),
            _ => false,
        }
    }

    /// A stable name for people who must not see more.
    pub fn reason(&self) -> &'static str {
        match self {
            _ if self.is_damage() => "row-corrupt",
            _ if self.is_value_refused() => "value-refused",
            Self::Database(_) | Self::File(_) if self.is_transient() => "store-unreachable",
            Self::Database(_) | Self::File(_) | Self::Server(_) | Self::Unusable { .. } | Self::Migrate(_) => {
                "store-refused"
            }
            Self::Corrupt { .. } | Self::Json(_) => "row-corrupt",
            Self::Superseded => "superseded",
            Self::OverBudget => "over-budget",
            Self::LongBusy => "overloaded",
        }
    }

    pub(crate) fn corrupt<E: Into<Box<dyn StdError + Send + Sync>>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Corrupt { what, source: source.into() }
    }
}

/// Everything that one batch writes, in one transaction.
#[derive(Debug)]
pub struct Changes<'a> {
    /// Orders, history, dead letters and waiting events.
    pub batch: &'a Batch,
    /// The sums.
    pub totals: &'a TotalsRows,
    /// Which orders have which products.
    pub order_products: &'a OrderProducts,
    /// How far the partitions are applied with this batch.
    pub checkpoints: &'a Checkpoints,
    /// How many changes are kept for streams that resume.
    pub changes_kept: u32,
    /// This node's clock, in microseconds; told by what waits and what is set aside, never by a projection.
    pub now_micros: i64,
}

/// The rows of all totals, as far as a batch concerns them: made by [`Transaction::totals`].
#[derive(Debug)]
pub struct TotalsRows {
    customers: Rows<Customers>,
    daily_sales: Rows<DailySales>,
    product_demand: Rows<ProductDemand>,
    cancellations: Rows<Cancellations>,
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
