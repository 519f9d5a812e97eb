//! The catalogue: what a piece of each SKU costs. Clients name SKUs; only the catalogue names prices.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chassis::tasks::detached;
use domain::{Currency, Money, Sku};
use moka::future::Cache;
use sqlx::PgPool;
use thiserror::Error;

/// For how long a price may be used without asking the database again: how late other nodes notice a change.
pub const PRICE_AGE_MAX: Duration = Duration::from_secs(1);
/// The most SKUs whose prices are kept in memory.
const PRICES_MAX: u64 = 100_000;

/// Why the catalogue could not answer.
#[derive(Debug, Error)]
pub enum Error {
    /// The database's own words.
    #[error("the catalogue could not be read")]
    Database(#[from] sqlx::Error),
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
    CutOff(#[from] tokio::task::JoinError),
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
    /// None: the SKU has no price.
    recent: Cache<Sku, Option<Money>>,
    /// The price of a SKU that the catalogue does not have; such a SKU is refused without it.
    unknown_sku_price: Option<Money>,
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
    /// The catalogue of a database.
    pub fn new(pool: PgPool, default_currency: Currency, unknown_sku_price: Option<Money>) -> Self {
        let recent = Cache::builder().max_capacity(PRICES_MAX).time_to_live(PRICE_AGE_MAX).build();
        Self { pool, recent, unknown_sku_price, default_currency }
    }

    /// The currency of a price that names none.
    pub fn default_currency(&self) -> Currency {
        self.default_currency
    }

    /// The prices of SKUs; none for those that may not be sold.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn prices(&self, skus: BTreeSet<Sku>) -> Result<HashMap<Sku, Option<Money>>, Error> {
        let mut prices = HashMap::with_capacity(skus.len());
        let mut unknown = Vec::new();
        for sku in skus {
            match self.recent.get(&sku).await {
                Some(price) => {
                    prices.insert(sku, price);
                }
                None => unknown.push(sku),
            }
        }
        if !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|sku| sku.as_str().to_owned()).collect();
            let pool = self.pool.clone();
            let rows: Vec<Row> = detached(async move {
                sqlx::query_as("select sku, unit_price_minor, currency, name from products where sku = any($1)")
                    .bind(names)
                    .fetch_all(&pool)
                    .await
            })
            .await??;
            let mut found: HashMap<Sku, Money> = HashMap::with_capacity(rows.len());
            for row in rows {
                let product = read(row)?;
                found.insert(product.sku, product.unit_price);
            }
            for sku in unknown {
                let price = found.remove(&sku).or(self.unknown_sku_price);
                self.recent.insert(sku.clone(), price).await;
                prices.insert(sku, price);
            }
        }
        Ok(prices)
    }

    /// One product.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn product(&self, sku: &Sku) -> Result<Option<Product>, Error> {
        let (pool, sku) = (self.pool.clone(), sku.as_str().to_owned());
        let row: Option<Row> = detached(async move {
            sqlx::query_as("select sku, unit_price_minor, currency, name from products where sku = $1")
                .bind(sku)
                .fetch_optional(&pool)
                .await
        })
        .await??;
        row.map(read).transpose()
    }

    /// Products by SKU, at most `products_max` after `after`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn list(&self, after: Option<String>, products_max: u32) -> Result<Vec<Product>, Error> {
        let pool = self.pool.clone();
        let rows: Vec<Row> = detached(async move {
            sqlx::query_as(
                "select sku, unit_price_minor, currency, name from products
                 where sku collate \"C\" > $1 order by sku collate \"C\" limit $2",
            )
            .bind(after.unwrap_or_default())
            .bind(i64::from(products_max))
            .fetch_all(&pool)
            .await
        })
        .await??;
        rows.into_iter().map(read).collect()
    }

    /// Sets a product's price and name. True when it is new.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn put(&self, product: Product) -> Result<bool, Error> {
        let pool = self.pool.clone();
        let Product { sku, unit_price, name } = product;
        let key = sku.as_str().to_owned();
        // All rows are fetched, so that the answer comes after the commit and not before it (rules R1).
        let created: Vec<bool> = detached(async move {
            sqlx::query_scalar(
                "insert into products (sku, unit_price_minor, currency, name) values ($1, $2, $3, $4)
                 on conflict (sku) do update
                 set unit_price_minor = excluded.unit_price_minor, currency = excluded.currency, name = excluded.name,
                     updated_at = now()
                 returning xmax = 0",
            )
            .bind(key)
            .bind(unit_price.minor())
            .bind(unit_price.currency().code())
            .bind(name)
            .fetch_all(&pool)
            .await
        })
        .await??;
        self.recent.invalidate(&sku).await;
        Ok(created.first().copied().unwrap_or_default())
    }

    /// Adds products that do not exist yet, and leaves the others as they are.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn seed(&self, products: &[Product]) -> Result<(), Error> {
        for Product { sku, unit_price, name } in products {
            sqlx::query(
                "insert into products (sku, unit_price_minor, currency, name) values ($1, $2, $3, $4)
                 on conflict (sku) do nothing",
            )
            .bind(sku.as_str())
            .bind(unit_price.minor())
            .bind(unit_price.currency().code())
            .bind(name)
            .execute(&self.pool)
            .await?;
        }
        Ok(())
    }
}
