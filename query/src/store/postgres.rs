//! PostgreSQL: one database that nodes share. One of them projects, under a [`lease`](Keeper) with a fencing epoch; all
//! of them serve.
//!
//! - **Invariant:** a transaction of the projection commits only under the epoch that it began with, so a node that
//!   was stopped, and wakes up after another one took over, changes nothing (rules R23).

mod changes;

mod digest;

mod generations;

mod intake;

mod lease;

mod load;

mod long;

mod read;

mod save;

use std::time::Duration;

use chassis::config::Secret;
use chassis::postgres::{connect_options, migrate};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, Postgres};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::watch;

pub use generations::Generations;
pub use lease::{HEARTBEAT, Keeper, LEASE};

use super::{Error, Turn};

/// The tables, as `sqlx migrate run --source migrations/query/postgres` makes them.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations/query/postgres");

/// Connections that answer the API.
const READERS_MAX: u32 = 16;
/// Connections for questions that may take long, beside them.
const LONG_MAX: u32 = READERS_MAX / 2;
/// One writes, one keeps the lease.
const WRITERS_MAX: u32 = 2;
/// How long a request waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that was idle for longer is asked whether it still is one before it is used: the server may have been
/// restarted since. One that works all the time would only lose a round trip each time.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// The read side: cheap to clone, never writes.
#[derive(Debug, Clone)]
pub struct Store {
    readers: PgPool,
    /// For what may take long, so that it holds up nothing else.
    long: PgPool,
}

/// The write side of one node.
#[derive(Debug)]
pub struct Writer {
    pool: PgPool,
    /// The epoch of our lease, as its keeper tells it.
    told: watch::Receiver<Option<i64>>,
    /// The epoch under which this writer writes.
    epoch: Option<i64>,
}

/// One transaction of the writer. Dropped without a commit, it leaves no trace.
#[derive(Debug)]
pub struct Transaction {
    inner: sqlx::Transaction<'static, Postgres>,
    epoch: i64,
}

/// A store in the database that `url` names, in `schema` or where the URL says. The server is first asked when it is used.
fn open(url: &Secret, schema: Option<&str>) -> Result<(Store, Writer, Keeper), Error> {
    let place = schema.map(|schema| ("search_path", schema));
    let reading =
        connect_options(url, "order-query", None)?.options([("default_transaction_read_only", "on")]).options(place);
    let readers = PgPoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta.idle_for)))
        .connect_lazy_with(reading.clone());
    let long = PgPoolOptions::new()
        .max_connections(LONG_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta.idle_for)))
        .connect_lazy_with(reading);
    let options = connect_options(url, "order-query-projector", None)?.options([
        // A batch may be large, and the disk slow.
        ("statement_timeout", "60s"),
        // A node that stops in the middle of a batch must not hold its rows against the next one for longer than it
        // holds the lease.
        ("idle_in_transaction_session_timeout", "3s"),
        // A crash of the server may lose the newest transactions, never their order: the checkpoint is lost with the
        // rows it stands for, and the topic tells them again.
        ("synchronous_commit", "off"),
    ]);
    let options = options.options(place);
    let pool =
        PgPoolOptions::new().max_connections(WRITERS_MAX).acquire_timeout(ACQUIRE_TIMEOUT).connect_lazy_with(options);
    let (telling, told) = watch::channel(None);
    let keeper = Keeper::new(pool.clone(), telling);
    Ok((Store { readers, long }, Writer { pool, told, epoch: None }, keeper))
}

async fn is_alive(connection: &mut PgConnection, idle_for: Duration) -> Result<bool, sqlx::Error> {
    if idle_for > IDLE_TRUSTED {
        connection.ping().await?;
    }
    Ok(true)
}

impl Store {
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        sqlx::query("select 1 from checkpoints limit 1").fetch_optional(&self.readers).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.long.close().await;
        self.readers.close().await;
    }
}

impl Writer {
    /// How to reach the database for operators' wishes, which a crash of the server must not forget once they are told.
    pub(super) fn options(&self) -> PgConnectOptions {
        let options = self.pool.connect_options();
        PgConnectOptions::clone(&options).application_name("order-query-admin").options([("synchronous_commit", "on")])
    }

    pub(crate) async fn migrate(&mut self) -> Result<(), Error> {
        migrate(&self.pool.connect_options(), &MIGRATOR).await?;
        Ok(())
    }

    pub(crate) fn turn(&mut self) -> Turn {
        let told = *self.told.borrow_and_update();
        let before = std::mem::replace(&mut self.epoch, told);
        match told {
            None => Turn::NotOurs,
            now if now == before => Turn::Ours,
            Some(_) => Turn::New,
        }
    }

    pub(crate) async fn begin(&mut self) -> Result<Transaction, Error> {
        if self.epoch.is_none() {
            self.epoch = *self.told.borrow_and_update();
        }
        let epoch = self.epoch.ok_or(Error::Superseded)?;
        Ok(Transaction { inner: self.pool.begin().await?, epoch })
    }

    /// The keeper gives the lease back when it sees that the writer is gone.
    pub(crate) async fn close(self) -> Result<(), Error> {
        drop(self.told);
        Ok(())
    }
}

impl Transaction {
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        // The lock lasts until the commit, and a new owner waits for it. After a commit whose end we did not see, the
        // batch may be read and written once more: its first event then meets itself in order_history and aborts us.
        let ours: Option<i64> = sqlx::query_scalar("select epoch from projection_lease where epoch = $1 for key share")
            .bind(self.epoch)
            .fetch_optional(&mut *self.inner)
            .await?;
        if ours.is_none() {
            return Err(Error::Superseded);
        }
        self.inner.commit().await?;
        Ok(())
    }
}
