//! Generations as schemas: the one of the URL is the first, `NAME_g2` beside it the second. The pointer is a row in the
//! first.

use std::str::FromStr as _;

use chassis::config::Secret;
use chassis::postgres::connect_options;
use domain::Currency;
use sqlx as asking;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Row as _};

use super::{ACQUIRE_TIMEOUT, Keeper, Store, Transaction, Writer, is_alive, open};
use crate::generation::{Built, FIRST, Generation, Number};
use crate::store::Error;
use crate::store::keeping::{self, LiveRecord, keep_generation, tell_generation};

/// The indexes that only readers need. `changes` and its own are read by the projector.
const DEFERRABLE: &str = "select i.indexname::text, i.indexdef from pg_indexes as i \
    where i.schemaname = current_schema() and i.tablename in ('orders', 'order_products', 'dead_letters') \
    and not exists (select 1 from pg_constraint as c where c.conname = i.indexname \
    and c.connamespace = current_schema()::regnamespace) order by 1";
/// Which orders have which products, from the orders themselves: sorted, so that every page is filled once.
const PRODUCTS: [&str; 2] = [
    "delete from order_products",
    "insert into order_products (sku, created_at, order_id, currency, total_minor) \
    select distinct (item ->> 'sku') collate \"C\", o.created_at, o.order_id, o.currency, o.total_minor \
    from orders as o, json_array_elements(o.document::json -> 'items') as item order by 1, 2, 3",
];
/// A connection asks for the pointer, another one makes or removes a schema.
const CONNECTIONS_MAX: u32 = 2;
/// An index takes as long as there are rows.
const PATIENT: &[&str] = &["set local statement_timeout = 0"];

tell_generation!(Store);
keep_generation!(Transaction);

/// The schemas of one read model.
#[derive(Debug, Clone)]
pub struct Generations {
    url: Secret,
    pool: PgPool,
}

impl Generations {
    pub(crate) fn at(url: &Secret) -> Result<Self, Error> {
        // Making and removing tables may wait for readers.
        let options = connect_options(url, "order-query-generations", None)?.options([("statement_timeout", "60s")]);
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS_MAX)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta.idle_for)))
            .connect_lazy_with(options);
        Ok(Self { url: url.clone(), pool })
    }

    async fn first(&self) -> Result<String, Error> {
        let schema: Option<String> = sqlx::query_scalar("select current_schema()::text").fetch_one(&self.pool).await?;
        let plain = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        schema
            .filter(plain)
            .ok_or_else(|| Error::Unusable { reason: "the schema of the URL is not a plain identifier".to_owned() })
    }

    async fn schema(&self, number: Number) -> Result<String, Error> {
        let first = self.first().await?;
        Ok(if number == FIRST { first } else { format!("{first}_g{number}") })
    }

    pub(crate) async fn open(&self, number: Number) -> Result<(Store, Writer, Keeper), Error> {
        if number == FIRST {
            return open(&self.url, None);
        }
        if !self.numbers().await?.contains(&number) {
            return Err(Error::Unusable { reason: format!("there is no generation {number}") });
        }
        open(&self.url, Some(&self.schema(number).await?))
    }

    pub(crate) async fn live(&self) -> Result<LiveRecord, Error> {
        Ok(sqlx::query_as("select number, previous from live_generation").fetch_one(&self.pool).await?)
    }

    pub(crate) async fn numbers(&self) -> Result<Vec<Number>, Error> {
        let first = self.first().await?;
        let names: Vec<String> =
            sqlx::query_scalar("select nspname::text from pg_namespace where starts_with(nspname::text, $1 || '_g')")
                .bind(&first)
                .fetch_all(&self.pool)
                .await?;
        let beside = names.iter().filter_map(|name| name.strip_prefix(&first)?.strip_prefix("_g"));
        let beside = beside.filter_map(|number| Number::from_str(number).ok()).filter(|number| *number > FIRST);
        let mut numbers: Vec<_> = std::iter::once(FIRST).chain(beside).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(crate) async fn look(&self, number: Number) -> Result<Option<Generation>, Error> {
        let schema = self.schema(number).await?;
        let table: Option<String> = sqlx::query_scalar("select to_regclass($1 || '.generation')::text")
            .bind(&schema)
            .fetch_one(&self.pool)
            .await?;
        if table.is_none() {
            return Ok(None);
        }
        let statement = keeping::GENERATION.replace("from generation", &format!("from {schema}.generation"));
        let found = sqlx::query_as(AssertSqlSafe(statement)).fetch_optional(&self.pool).await?;
        found.map(keeping::generation).transpose()
    }

    pub(crate) async fn make(&self, number: Number) -> Result<(), Error> {
        let schema = self.schema(number).await?;
        sqlx::query(AssertSqlSafe(format!("create schema {schema}"))).execute(&self.pool).await?;
        Ok(())
    }

    /// The pointer moves in a transaction that commits only under the lease on what it will point to.
    pub(crate) async fn promote(
        &self,
        writer: &mut Writer,
        from: Number,
        to: Number,
        now_micros: i64,
    ) -> Result<(), Error> {
        let first = self.first().await?;
        let mut transaction = writer.begin().await?;
        // Told to readers at once: it must not be forgotten in a crash.
        sqlx::query("set local synchronous_commit = on").execute(&mut *transaction.inner).await?;
        let moved = sqlx::query(AssertSqlSafe(format!(
            "update {first}.live_generation set number = $1, previous = number, since = $2 where number = $3"
        )))
        .bind(to)
        .bind(now_micros)
        .bind(from)
        .execute(&mut *transaction.inner)
        .await?;
        if moved.rows_affected() != 1 {
            return Err(Error::Superseded);
        }
        transaction.commit().await
    }

    pub(crate) async fn remove(&self, number: Number) -> Result<(), Error> {
        let schema = self.schema(number).await?;
        if number != FIRST {
            sqlx::query(AssertSqlSafe(format!("drop schema {schema} cascade"))).execute(&self.pool).await?;
            return Ok(());
        }
        let rows = sqlx::query(
            "select tablename::text from pg_tables where schemaname = current_schema() \
             and tablename not in ('live_generation', 'projection_lease', '_sqlx_migrations')",
        )
        .fetch_all(&self.pool)
        .await?;
        let tables: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
        let statement = format!("truncate {}", tables?.join(", "));
        sqlx::query(AssertSqlSafe(statement)).execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
