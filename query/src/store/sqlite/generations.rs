//! Generations as files: `orders.db` is the first one, `orders.db.g2` the second. The pointer is a row in the first.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use domain::Currency;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Connection as _};

use super::{ACQUIRE_TIMEOUT, Store, Transaction, Writer, ask as asking, open};
use crate::generation::{Built, FIRST, Generation, Number};
use crate::store::keeping::{self, LiveRecord, keep_generation, tell_generation};
use crate::store::{Error, sqlite};

/// The indexes that only readers need. `changes` and its own are read by the projector.
const DEFERRABLE: &str = "select name, sql from sqlite_master where type = 'index' and sql is not null \
    and tbl_name in ('orders', 'order_products', 'dead_letters') order by name";
/// Which orders have which products, from the orders themselves: sorted, so that every page is filled once.
const PRODUCTS: [&str; 2] = [
    "delete from order_products",
    "insert into order_products (sku, created_at, order_id, currency, total_minor) \
    select distinct item.value ->> 'sku', o.created_at, o.order_id, o.currency, o.total_minor \
    from orders as o, json_each(o.document, '$.items') as item order by 1, 2, 3",
];
/// There is no deadline on a statement here.
const PATIENT: &[&str] = &[];

tell_generation!(Store);
keep_generation!(Transaction<'_>);

/// The files of one read model.
#[derive(Debug, Clone)]
pub struct Generations {
    options: SqliteConnectOptions,
    first: PathBuf,
    pointer: SqlitePool,
}

impl Generations {
    pub(crate) fn at(url: &str) -> Result<Self, Error> {
        let options = sqlite::options(url)?;
        let first = options.get_filename().to_owned();
        let pointer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        Ok(Self { options, first, pointer })
    }

    fn path(&self, number: Number) -> PathBuf {
        if number == FIRST {
            return self.first.clone();
        }
        let mut path = OsString::from(&self.first);
        path.push(format!(".g{number}"));
        PathBuf::from(path)
    }

    pub(crate) async fn open(&self, number: Number) -> Result<(Store, Writer), Error> {
        let path = self.path(number);
        if number != FIRST && !path.exists() {
            let path = path.display();
            return Err(Error::Unusable {
                reason: format!(
                    "the file of generation {number}, {path}, is not there: bring it back, or remove all files of the read model to have it built anew"
                ),
            });
        }
        open(self.options.clone().filename(path)).await
    }

    pub(crate) async fn live(&self) -> Result<LiveRecord, Error> {
        Ok(sqlx::query_as("select number, previous from live_generation").fetch_one(&self.pointer).await?)
    }

    pub(crate) async fn numbers(&self) -> Result<Vec<Number>, Error> {
        let unreadable = |error: std::io::Error| Error::Unusable { reason: error.to_string() };
        let folder = self.first.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut numbers = vec![FIRST];
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let first = self.first.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = name.to_string_lossy().into_owned();
            let number = name.strip_prefix(&first).and_then(|rest| rest.strip_prefix(".g"));
            numbers.extend(number.and_then(|number| Number::from_str(number).ok()).filter(|number| *number > FIRST));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(crate) async fn look(&self, number: Number) -> Result<Option<Generation>, Error> {
        let options = self.options.clone().filename(self.path(number)).read_only(true);
        let mut connection = SqliteConnection::connect_with(&options).await?;
        let tables: i64 = sqlx::query_scalar("select count(*) from sqlite_master where name = 'generation'")
            .fetch_one(&mut connection)
            .await?;
        let found = match tables {
            0 => None,
            _ => sqlx::query_as(keeping::GENERATION).fetch_optional(&mut connection).await?,
        };
        connection.close().await?;
        found.map(keeping::generation).transpose()
    }

    pub(crate) async fn make(&self, number: Number) -> Result<(), Error> {
        let options = self.options.clone().filename(self.path(number)).create_if_missing(true);
        SqliteConnection::connect_with(&options).await?.close().await?;
        Ok(())
    }

    pub(crate) async fn promote(&self, from: Number, to: Number, now_micros: i64) -> Result<(), Error> {
        let moved =
            sqlx::query("update live_generation set number = $1, previous = number, since = $2 where number = $3")
                .bind(to)
                .bind(now_micros)
                .bind(from)
                .execute(&self.pointer)
                .await?;
        if moved.rows_affected() == 1 { Ok(()) } else { Err(Error::Superseded) }
    }

    pub(crate) async fn remove(&self, number: Number) -> Result<(), Error> {
        if number == FIRST {
            return self.empty_first().await;
        }
        for end in ["-wal", "-shm", ".lock", ""] {
            let mut path = OsString::from(self.path(number));
            path.push(end);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Unusable { reason: error.to_string() });
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn empty_first(&self) -> Result<(), Error> {
        let mut transaction = self.pointer.begin_with("begin immediate").await?;
        let tables: Vec<String> = sqlx::query_scalar(
            "select name from sqlite_master where type = 'table' and name not like 'sqlite_%' \
             and name not in ('live_generation', '_sqlx_migrations')",
        )
        .fetch_all(&mut *transaction)
        .await?;
        for table in tables {
            sqlx::query(AssertSqlSafe(format!("delete from {table}"))).execute(&mut *transaction).await?;
        }
        transaction.commit().await?;
        sqlx::query("vacuum").execute(&self.pointer).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.pointer.close().await;
    }
}
