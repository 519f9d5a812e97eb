//! The catalogue: what a piece of each SKU costs. Clients name SKUs; only the catalogue names prices.

mod prices;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use chassis::postgres;
use chassis::tasks::detached;
use domain::{Currency, Money, Sku};
use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use prices::Prices;
pub use prices::{PRICE_AGE_MAX, PriceLoader};

/// How long a request waits for its turn at a connection.
const TURN_WAIT: Duration = Duration::from_secs(1);
/// How long the database has to answer. The server's own deadline for a statement is shorter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(6);

/// Why the catalogue could not answer.
#[derive(Debug, Clone, Error)]
pub enum Error {
    /// The database's own words. One failed question may have many askers.
    #[error("the catalogue could not be read")]
    Database(#[source] Arc<sqlx::Error>),
    /// More is asked than the database answers in time.
    #[error("too many questions wait for the catalogue")]
    Overloaded,
    /// A row that this program did not write.
    #[error("the product `{sku}` has an impossible price")]
    Corrupt {
        /// Which.
        sku: String,
        /// What is wrong with it.
        #[source]
        source: domain::money::InvalidMoney,
    },
    /// The task of the look-up died.
    #[error("the look-up was cut off")]
    CutOff,
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// What is sold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    /// Its name.
    pub sku: Sku,
    /// The price of one piece.
    pub unit_price: Money,
    /// Its name for people.
    pub name: Option<String>,
}

/// The products in PostgreSQL, with recent prices in memory.
#[derive(Debug)]
pub struct Catalog {
    pool: PgPool,
    /// As many as the pool has connections, so that waiting for a busy pool is told from waiting for a database that is away.
    turns: Arc<Semaphore>,
    prices: Prices,
    default_currency: Currency,
}

type Row = (String, i64, String, Option<String>);

fn read((sku, minor, currency, name): Row) -> Result<Product, Error> {
    let price = currency.parse::<Currency>().and_then(|currency| Money::from_minor(minor, currency));
    match (price, sku.parse::<Sku>()) {
        (Ok(unit_price), Ok(sku)) => Ok(Product { sku, unit_price, name }),
        (Err(source), _) => Err(Error::Corrupt { sku, source }),
        (Ok(_), Err(invalid)) => {
            Err(Error::Corrupt { source: domain::money::InvalidMoney::NotADecimal(invalid.to_string()), sku })
        }
    }
}

impl Catalog {
    /// The catalogue of a database, and the loader of its prices, to be run as a task. Products are read and changed over `pool`,
    /// prices over `price_pool`: whoever lists products does not delay orders.
    pub fn new(
        pool: PgPool,
        price_pool: PgPool,
        default_currency: Currency,
        unknown_sku_price: Option<Money>,
    ) -> (Self, PriceLoader) {
        let (prices, loader) = Prices::new(price_pool, unknown_sku_price);
        let turns = Arc::new(Semaphore::new(pool.options().get_max_connections() as usize));
        (Self { pool, turns, prices, default_currency }, loader)
    }

    /// The currency of a price that names none.
    pub fn default_currency(&self) -> Currency {
        self.default_currency
    }

    /// The prices of SKUs; none for those that may not be sold.
    ///
    /// # Errors
    ///
    /// The database's, or that too much is asked.
    pub async fn prices(&self, skus: BTreeSet<Sku>) -> Result<HashMap<Sku, Option<Money>>, Error> {
        self.prices.of(skus).await
    }

    /// One product.
    ///
    /// # Errors
    ///
    /// The database's, or that too much is asked.
    pub async fn product(&self, sku: &Sku) -> Result<Option<Product>, Error> {
        let sku = sku.as_str().to_owned();
        let row: Option<Row> = self
            .ask(|connection| {
                Box::pin(async move {
                    sqlx::query_as("select sku, unit_price_minor, currency, name from products where sku = $1")
                        .bind(sku)
                        .fetch_optional(connection)
                        .await
                })
            })
            .await?;
        row.map(read).transpose()
    }

    /// Products by SKU, at most `products_max` after `after`.
    ///
    /// # Errors
    ///
    /// The database's, or that too much is asked.
    pub async fn list(&self, after: Option<Sku>, products_max: u32) -> Result<Vec<Product>, Error> {
        let rows: Vec<Row> = self
            .ask(move |connection| {
                Box::pin(async move {
                    sqlx::query_as(
                        "select sku, unit_price_minor, currency, name from products
                         where sku collate \"C\" > $1 order by sku collate \"C\" limit $2",
                    )
                    .bind(after.as_ref().map(Sku::as_str).unwrap_or_default())
                    .bind(i64::from(products_max))
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        rows.into_iter().map(read).collect()
    }

    /// Sets a product's price and name. True when it is new.
    ///
    /// # Errors
    ///
    /// The database's, or that too much is asked.
    pub async fn put(&self, product: Product) -> Result<bool, Error> {
        let (prices, sku) = (self.prices.clone(), product.sku.clone());
        self.ask(move |connection| {
            Box::pin(async move {
                let created = upsert(connection, product).await;
                // After an error as well: it may have happened.
                prices.forget(sku).await;
                created
            })
        })
        .await
    }

    /// Asks the database in turn with the others. Work that has begun goes on without its asker.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = timeout(TURN_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_elapsed| Error::Overloaded)?.map_err(|_closed| Error::CutOff)?;
        let pool = self.pool.clone();
        let answer = detached(async move {
            let _turn = turn;
            postgres::ask(&pool, ANSWER_DEADLINE, question).await
        });
        Ok(answer.await.map_err(|_panicked| Error::CutOff)??)
    }
}

async fn upsert(connection: &mut PgConnection, product: Product) -> Result<bool, sqlx::Error> {
    // All rows are fetched, so that the answer comes after the commit and not before it (rules R1).
    let created: Vec<bool> = sqlx::query_scalar(
        "insert into products (sku, unit_price_minor, currency, name) values ($1, $2, $3, $4)
         on conflict (sku) do update
         set unit_price_minor = excluded.unit_price_minor, currency = excluded.currency, name = excluded.name,
             updated_at = now()
         returning xmax = 0",
    )
    .bind(product.sku.as_str())
    .bind(product.unit_price.minor())
    .bind(product.unit_price.currency().code())
    .bind(product.name)
    .fetch_all(connection)
    .await?;
    created.first().copied().ok_or(sqlx::Error::RowNotFound)
}

/// Adds products that do not exist yet, and leaves the others as they are.
///
/// # Errors
///
/// The database's.
pub async fn seed(connection: &mut PgConnection, products: &[Product]) -> Result<(), sqlx::Error> {
    for Product { sku, unit_price, name } in products {
        sqlx::query(
            "insert into products (sku, unit_price_minor, currency, name) values ($1, $2, $3, $4)
             on conflict (sku) do nothing",
        )
        .bind(sku.as_str())
        .bind(unit_price.minor())
        .bind(unit_price.currency().code())
        .bind(name)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
