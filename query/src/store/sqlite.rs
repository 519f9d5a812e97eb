//! SQLite: one file per node, one writer, any number of readers beside it (rules R17).

mod changes;

mod digest;

mod generations;

mod intake;

mod load;

mod read;

mod readers;

mod recent;

mod save;

mod turns;

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection as _, Sqlite};

pub use generations::Generations;

use self::readers::Readers;
use self::recent::{Owning, Recent, Touched};
use super::{Error, Turn};

/// The tables, as `sqlx migrate run --source migrations/query/sqlite` makes them.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations/query/sqlite");

/// Before this version a WAL can be corrupted by two connections that write and checkpoint (rules R17).
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How long a statement waits for a lock. There is one writer, beside which an operator's wish is written now and then.
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
    /// What is asked most.
    direct: Readers,
    /// The rest.
    readers: SqlitePool,
    recent: Arc<Recent>,
}

/// The write side: the only connection that projects, in whichever process it is.
#[derive(Debug)]
pub struct Writer {
    connection: SqliteConnection,
    /// Whoever holds the lock on this file projects. The system takes it back when the process ends, however it ends.
    lock: PathBuf,
    held: Option<Held>,
    options: Box<SqliteConnectOptions>,
    recent: Arc<Recent>,
}

/// The lock on a file. While it is held, nobody but this process changes what the file holds.
#[derive(Debug)]
struct Held {
    // In this order: nothing is known by heart any more when the lock goes.
    _owning: Owning,
    _file: File,
}

/// One transaction of the writer. Dropped without a commit, it leaves no trace.
#[derive(Debug)]
pub struct Transaction<'w> {
    inner: sqlx::Transaction<'w, Sqlite>,
    recent: Arc<Recent>,
    touched: Touched,
}

/// How the file that `url` names is opened.
fn options(url: &str) -> Result<SqliteConnectOptions, Error> {
    let unusable = |reason: String| Error::Unusable { reason };
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(unusable("a database in memory cannot be shared by a writer and its readers".to_owned()));
    }
    Ok(SqliteConnectOptions::from_str(url)
        .map_err(|error| unusable(error.to_string()))?
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("temp_store", "memory")
        // Reading through a map turns an I/O error into a signal that ends the process.
        .pragma("mmap_size", "0"))
}

/// Opens a file, creating it when it is missing, with its one writer.
async fn open(options: SqliteConnectOptions) -> Result<(Store, Writer), Error> {
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
    let mut lock = OsString::from(options.get_filename());
    lock.push(".lock");
    let direct = Readers::of(options.get_filename().to_owned());
    let reading = options.read_only(true).pragma("cache_size", READER_CACHE_SIZE).pragma("query_only", "on");
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // A file does not go away like a server does; asking before each use costs a hop.
        .test_before_acquire(false)
        .connect_lazy_with(reading);
    let recent = Arc::new(Recent::default());
    let store = Store { direct, readers, recent: Arc::clone(&recent) };
    Ok((store, Writer { connection, options: Box::new(writing), lock: lock.into(), held: None, recent }))
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
        self.direct.close().await;
        self.readers.close().await;
    }
}

impl Writer {
    /// How to open the file for writing.
    pub(super) fn options(&self) -> &SqliteConnectOptions {
        &self.options
    }

    pub(crate) async fn migrate(&mut self) -> Result<(), Error> {
        // Not `run`: of its future the compiler cannot see that it may move between threads.
        MIGRATOR.run_direct(None, &mut self.connection, false).await?;
        Ok(())
    }

    /// Sorts on the disk from now on: an index of all rows may be larger than the memory there is.
    pub(crate) async fn sort_on_disk(&mut self) -> Result<(), Error> {
        sqlx::query("pragma temp_store = file").execute(&mut self.connection).await?;
        Ok(())
    }

    /// Whether this process projects into the file.
    pub(crate) fn turn(&mut self) -> Turn {
        if self.held.is_some() {
            return Turn::Ours;
        }
        match File::create(&self.lock).map(|file| file.try_lock().map(|()| file)) {
            Ok(Ok(file)) => {
                self.held = Some(Held { _owning: self.recent.owned(), _file: file });
                Turn::New
            }
            Ok(Err(TryLockError::WouldBlock)) => Turn::NotOurs,
            Err(error) | Ok(Err(TryLockError::Error(error))) => {
                tracing::error!(%error, lock = %self.lock.display(), "the read model's lock cannot be taken");
                Turn::NotOurs
            }
        }
    }

    pub(crate) fn give_back(&mut self) {
        self.held = None;
    }

    // Immediate: nobody else's write can come between the loads and the saves.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        if self.turn() == Turn::NotOurs {
            return Err(Error::Superseded);
        }
        let inner = self.connection.begin_with("begin immediate").await?;
        Ok(Transaction { inner, recent: Arc::clone(&self.recent), touched: Touched::default() })
    }

    /// The lock goes last: whoever takes it finds the file closed.
    pub(crate) async fn close(self) -> Result<(), Error> {
        self.connection.close().await?;
        drop(self.held);
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
