//! SQLite: one file per node, one writer, any number of readers beside it (rules R17).

mod changes;

mod intake;

mod load;

mod read;

mod recent;

mod save;

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite};

use self::recent::{Recent, Touched};
use super::Error;

/// The tables, as `sqlx migrate run --source migrations/query/sqlite` makes them.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations/query/sqlite");

/// Before this version a WAL can be corrupted by two connections that write and checkpoint (rules R17).
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How long a statement waits for a lock. There is one writer, so only a checkpoint can hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages kept in memory by the writer, in KiB, as the negative number that SQLite takes.
const CACHE_SIZE: &str = "-65536";
/// The same for each reader.
const READER_CACHE_SIZE: &str = "-16384";
/// Connections that answer the API.
const READERS_MAX: u32 = 8;
/// How long a request waits for one of them.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// The read side: cheap to clone, never writes.
#[derive(Debug, Clone)]
pub struct Store {
    readers: SqlitePool,
    recent: Arc<Recent>,
}

/// The write side: the only connection that writes.
#[derive(Debug)]
pub struct Writer {
    connection: SqliteConnection,
    recent: Arc<Recent>,
}

/// One transaction of the writer. Dropped without a commit, it leaves no trace.
#[derive(Debug)]
pub struct Transaction<'w> {
    inner: sqlx::Transaction<'w, Sqlite>,
    recent: Arc<Recent>,
    touched: Touched,
}

/// Opens the file that `url` names, creating it when it is missing, with its one writer.
///
/// # Errors
///
/// When the URL names no file, the file cannot be opened, or the library is older than 3.51.3.
pub async fn open(url: &str) -> Result<(Store, Writer), Error> {
    let unusable = |reason: String| Error::Unusable { reason };
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(unusable("a database in memory cannot be shared by a writer and its readers".to_owned()));
    }
    let options = SqliteConnectOptions::from_str(url)
        .map_err(|error| unusable(error.to_string()))?
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("temp_store", "memory")
        // Reading through a map turns an I/O error into a signal that ends the process.
        .pragma("mmap_size", "0");
    let writing = options
        .clone()
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // A power cut may lose the newest transactions, never their order: the checkpoint is lost with the rows it
        // stands for, and the topic tells them again.
        .synchronous(SqliteSynchronous::Normal)
        .pragma("cache_size", CACHE_SIZE);
    let mut connection = SqliteConnection::connect_with(&writing).await?;
    check_version(&mut connection).await?;
    let reading = options.read_only(true).pragma("cache_size", READER_CACHE_SIZE).pragma("query_only", "on");
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A file does not go away like a server does; asking before each use costs a hop.
        .test_before_acquire(false)
        .connect_lazy_with(reading);
    let recent = Arc::new(Recent::default());
    Ok((Store { readers, recent: Arc::clone(&recent) }, Writer { connection, recent }))
}

async fn check_version(connection: &mut SqliteConnection) -> Result<(), Error> {
    let text: String = sqlx::query_scalar("select sqlite_version()").fetch_one(connection).await?;
    let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    if version < SQLITE_VERSION_MIN {
        let (major, minor, patch) = SQLITE_VERSION_MIN;
        return Err(Error::Unusable { reason: format!("SQLite is {text}, and {major}.{minor}.{patch} is required") });
    }
    Ok(())
}

impl Store {
    pub(crate) async fn ping(&self) -> Result<(), Error> {
        sqlx::query("select 1 from checkpoints limit 1").fetch_optional(&self.readers).await?;
        Ok(())
    }

    pub(crate) async fn quick_check(&self) -> Result<Option<String>, Error> {
        let found: Vec<String> = sqlx::query_scalar("pragma quick_check").fetch_all(&self.readers).await?;
        Ok(if found == ["ok"] { None } else { Some(found.join("; ")) })
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
    }
}

impl Writer {
    pub(crate) async fn migrate(&mut self) -> Result<(), Error> {
        MIGRATOR.run(&mut self.connection).await?;
        Ok(())
    }

    // Immediate: nobody else's write can come between the loads and the saves.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        let inner = self.connection.begin_with("begin immediate").await?;
        Ok(Transaction { inner, recent: Arc::clone(&self.recent), touched: Touched::default() })
    }

    pub(crate) async fn close(self) -> Result<(), Error> {
        self.connection.close().await?;
        Ok(())
    }
}

impl Transaction<'_> {
    pub(crate) async fn commit(self) -> Result<(), Error> {
        let committing = self.recent.committing(&self.touched);
        let committed = self.inner.commit().await;
        committing.end();
        Ok(committed?)
    }
}
