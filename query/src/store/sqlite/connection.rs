//! The connection that projects. It belongs to one thread at a time, so SQLite guards it with no mutex, and its statements
//! stay prepared.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{BUSY_TIMEOUT, SQLITE_VERSION_MIN};
use crate::store::Error;

/// What the connection keeps to. A power cut may lose the newest transactions, never their order: the checkpoint is lost with
/// the rows it stands for, and the topic tells them again. Reading through a map would turn an I/O error into a signal that
/// ends the process. The cache is in KiB, as a negative number.
const PRAGMAS: &str = "pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on; \
    pragma temp_store = memory; pragma mmap_size = 0; pragma cache_size = -65536";
/// Pages of the write-ahead log, of 4 KiB each, from which on a commit takes over what the checkpoints beside it have left:
/// 64 MiB. Only the writer can end a log that grows all the time.
const PAGES: &str = "pragma wal_autocheckpoint = 16384";
/// More than there are statements.
const STATEMENTS_MAX: usize = 128;

/// Opens a file for the projector, creating it when it is missing.
pub(super) fn connect(file: &Path) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    check_version(&connection)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(PRAGMAS)?;
    connection.execute_batch(PAGES)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

fn check_version(connection: &Connection) -> Result<(), Error> {
    let text: String = connection.query_row("select sqlite_version()", [], |row| row.get(0))?;
    let mut parts = text.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let version = (next(), next(), next());
    if version < SQLITE_VERSION_MIN {
        let (major, minor, patch) = SQLITE_VERSION_MIN;
        return Err(Error::Unusable { reason: format!("SQLite is {text}, and {major}.{minor}.{patch} is required") });
    }
    Ok(())
}

/// A transaction that is open. Dropped, it is rolled back.
#[derive(Debug)]
pub(super) struct Open<'w>(&'w mut Connection);

impl<'w> Open<'w> {
    /// Immediate: nobody else's write can come between the loads and the saves.
    pub(super) fn begin(connection: &'w mut Connection) -> Result<Self, rusqlite::Error> {
        let open = Self(connection);
        // One that could not be rolled back when it ended is in the way.
        open.roll_back()?;
        open.execute_batch("begin immediate")?;
        Ok(open)
    }

    pub(super) fn commit(self) -> Result<(), rusqlite::Error> {
        self.execute_batch("commit")
    }

    fn roll_back(&self) -> Result<(), rusqlite::Error> {
        if self.is_autocommit() { Ok(()) } else { self.execute_batch("rollback") }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.roll_back() {
            tracing::error!(%error, "a transaction cannot be rolled back; it is tried again before the next one begins");
        }
    }
}

impl Deref for Open<'_> {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.0
    }
}

impl DerefMut for Open<'_> {
    fn deref_mut(&mut self) -> &mut Connection {
        self.0
    }
}
