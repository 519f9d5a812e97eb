//! SQLite: one file per node, one writer, any number of readers beside it (rules R17).

mod ask;

mod budget;

mod changes;

mod checkpointer;

mod connection;

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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use sqlx::Connection as _;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};

pub use generations::Generations;

use self::checkpointer::{Checkpointer, Commits};
use self::connection::Open;
use self::readers::Readers;
use self::recent::{Owning, Recent, Touched};
use super::{Error, Turn};
use crate::cores::apart;

/// The tables, as `sqlx migrate run --source migrations/query/sqlite` makes them.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations/query/sqlite");

/// Before this version a WAL can be corrupted by two connections that write and checkpoint (rules R17).
const SQLITE_VERSION_MIN: (u32, u32, u32) = (3, 51, 3);
/// How long a statement waits for a lock. There is one writer, beside which an operator's wish is written now and then.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages kept in memory by each reader, in KiB, as the negative number that SQLite takes: the upper levels of the trees. The
/// system keeps the rest, and looking for a page among more of them costs more than fetching it from there.
const READER_CACHE_SIZE: &str = "-2048";
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
    /// Never locked: whoever writes has the writer for itself. It makes the writer one that can be looked at by many.
    connection: Mutex<Connection>,
    /// Whoever holds the lock on this file projects. The system takes it back when the process ends, however it ends.
    lock: PathBuf,
    held: Option<Held>,
    options: Box<SqliteConnectOptions>,
    recent: Arc<Recent>,
    /// From the first transaction on.
    checkpointer: Option<Checkpointer>,
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
    inner: Open<'w>,
    recent: Arc<Recent>,
    touched: Touched,
    commits: Commits,
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
        .synchronous(SqliteSynchronous::Normal);
    let connection = apart(async { connection::connect(options.get_filename()) }).await?;
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
    let connection = Mutex::new(connection);
    Ok((
        store,
        Writer { connection, options: Box::new(writing), lock: lock.into(), held: None, recent, checkpointer: None },
    ))
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
    /// How to open the file for writing beside this writer.
    pub(super) fn options(&self) -> &SqliteConnectOptions {
        &self.options
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) async fn migrate(&mut self) -> Result<(), Error> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        // Not `run`: of its future the compiler cannot see that it may move between threads.
        let migrated = MIGRATOR.run_direct(None, &mut connection, false).await;
        connection.close().await?;
        Ok(migrated?)
    }

    /// Sorts on the disk from now on: an index of all rows may be larger than the memory there is.
    pub(crate) async fn sort_on_disk(&mut self) -> Result<(), Error> {
        Ok(self.connection().execute_batch("pragma temp_store = file")?)
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

    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        if self.turn() == Turn::NotOurs {
            return Err(Error::Superseded);
        }
        let commits = match &self.checkpointer {
            Some(checkpointer) => checkpointer.commits(),
            None => self.checkpointer.insert(Checkpointer::start(self.options.get_filename())?).commits(),
        };
        // It may wait for an operator's wish that is being written.
        let inner =
            apart(async { Open::begin(self.connection.get_mut().unwrap_or_else(PoisonError::into_inner)) }).await?;
        Ok(Transaction { inner, recent: Arc::clone(&self.recent), touched: Touched::default(), commits })
    }

    /// The lock goes last: whoever takes it finds the file closed.
    pub(crate) async fn close(self) -> Result<(), Error> {
        let Self { connection, held, checkpointer, .. } = self;
        if let Some(checkpointer) = checkpointer {
            apart(async { checkpointer.stop() }).await;
        }
        let connection = connection.into_inner().unwrap_or_else(PoisonError::into_inner);
        let closed = apart(async { connection.close() }).await;
        // A connection that could not be closed in good order is closed when it is dropped.
        let closed = closed.map_err(|(_connection, error)| error);
        drop(held);
        Ok(closed?)
    }
}

impl Transaction<'_> {
    pub(crate) async fn commit(self) -> Result<(), Error> {
        let committing = self.recent.committing(&self.touched);
        let committed = apart(async { self.inner.commit() }).await;
        committing.end();
        self.commits.tell();
        Ok(committed?)
    }
}
