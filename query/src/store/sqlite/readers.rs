//! The connections that answer what is asked most: on the thread that serves, without a message to another one for each
//! question and each row. What may take long is read on a thread of its own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout, timeout_at};

use super::budget::Budget;
use super::turns::Turns;
use super::{BUSY_TIMEOUT, READER_CACHE_SIZE};
use crate::store::Error;

/// The most connections.
const CONNECTIONS_MAX: u32 = 8;
/// The most of them that long questions have: the others are left to quick ones.
const LONG_MAX: u32 = CONNECTIONS_MAX / 2;
/// How long a request waits for one of them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Statements that each of them keeps prepared. Lists have some hundreds of texts, of which few are asked for often.
const STATEMENTS_MAX: usize = 64;

/// Connections to one file, which only read; opened when they are first needed.
#[derive(Debug, Clone)]
pub(super) struct Readers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    /// The one that was used last is used next: it remembers the most.
    free: Mutex<Vec<Connection>>,
    room: Arc<Semaphore>,
    room_for_long: Arc<Semaphore>,
    closed: AtomicBool,
    turns: Arc<Turns>,
}

impl Readers {
    /// Readers of a file, to be asked in the runtime in which this is called.
    pub(super) fn of(file: PathBuf) -> Self {
        let threads = Handle::try_current().map_or(1, |runtime| runtime.metrics().num_workers());
        Self(Arc::new(Shared {
            file,
            free: Mutex::default(),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX as usize)),
            room_for_long: Arc::new(Semaphore::new(LONG_MAX as usize)),
            closed: AtomicBool::new(false),
            turns: Arc::new(Turns::of(threads)),
        }))
    }

    /// Reads what takes a few pages of the file: on this thread, unless it might have to wait for the disk.
    pub(super) async fn quick<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let permit = self.permit().await?;
        let turns = &self.0.turns;
        let began_us = turns.now_us();
        if let Some(_turn) = turns.enter(began_us) {
            let answer = self.0.read(permit, read);
            turns.took(began_us, turns.now_us());
            return answer;
        }
        let turns = Arc::clone(turns);
        let timed = move |connection: &Connection| {
            let began_us = turns.now_us();
            let answer = read(connection);
            turns.took(began_us, turns.now_us());
            answer
        };
        self.apart(permit, timed).await
    }

    /// Reads what may take `budget`, the wait for its turn included, on a thread of its own. Ends when whoever asked has
    /// left.
    pub(super) async fn long<T, F>(&self, budget: Duration, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let (budget, _asker) = Budget::new(Instant::now() + budget);
        let room = Arc::clone(&self.0.room_for_long).acquire_owned();
        let long = timeout_at(budget.until().into(), room).await.map_err(|_elapsed| Error::LongBusy)?;
        let long = long.map_err(|_closed| Error::Database(sqlx::Error::PoolClosed))?;
        let permit = self.permit().await?;
        let within = move |connection: &Connection| {
            let _until_it_ends = long;
            budget.read(connection, read)
        };
        self.apart(permit, within).await
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let room = Arc::clone(&self.0.room);
        if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = timeout(PATIENCE, room.acquire_owned()).await;
        let permit = permit.map_err(|_elapsed| Error::Database(sqlx::Error::PoolTimedOut))?;
        permit.map_err(|_closed| Error::Database(sqlx::Error::PoolClosed))
    }

    /// Whoever asked may go away meanwhile: the thread finishes, and gives back what it was lent.
    async fn apart<T, F>(&self, permit: OwnedSemaphorePermit, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let shared = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || shared.read(permit, read));
        // It has panicked, and said so.
        read.await.unwrap_or_else(|_panicked| Err(Error::Database(sqlx::Error::WorkerCrashed)))
    }

    /// Waits for those who read, and closes the connections. Who asks still, having begun before another file took this
    /// one's place, is answered from a connection that is closed at once.
    pub(super) async fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
        drop(self.0.room.acquire_many(CONNECTIONS_MAX).await);
        self.0.free().clear();
    }
}

impl Shared {
    fn free(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(
        &self,
        _permit: OwnedSemaphorePermit,
        read: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let free = self.free().pop();
        let connection = match free {
            Some(connection) => connection,
            None => self.open()?,
        };
        let answer = read(&connection);
        if !self.closed.load(Ordering::SeqCst) {
            self.free().push(connection);
        }
        answer
    }

    fn open(&self) -> Result<Connection, Error> {
        // No lock of its own: a connection is one thread's at a time.
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Else a statement whose plan might be another with another limit is planned anew for each of them.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.execute_batch(&format!(
            "pragma query_only = on; pragma cache_size = {READER_CACHE_SIZE}; pragma temp_store = memory; \
             pragma mmap_size = 0"
        ))?;
        Ok(connection)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rusqlite::{OptionalExtension as _, StatementStatus};

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// Never ends by itself.
    fn endless(connection: &Connection) -> Result<i64, Error> {
        let statement = "with recursive n(i) as (select 1 union all select i + 1 from n) select max(i) from n";
        Ok(connection.query_row(statement, [], |row| row.get(0))?)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn long_questions_end_with_their_time_and_leave_readers_for_quick_ones() {
        let folder = tempfile::tempdir().unwrap();
        let readers = Readers::of(file(&folder));
        let long = |budget: Duration| {
            let readers = readers.clone();
            tokio::spawn(async move { readers.long(budget, endless).await })
        };
        let all: Vec<_> = (0..32).map(|_| long(Duration::from_millis(500))).collect();
        for _n in 0..100 {
            let quick = timeout(Duration::from_secs(5), readers.quick(seven)).await;
            assert_eq!(quick.unwrap().unwrap(), 7);
        }
        let (mut ended, mut refused) = (0, 0);
        for one in all {
            match one.await.unwrap() {
                Err(Error::OverBudget) => ended += 1,
                Err(Error::LongBusy) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(ended >= LONG_MAX && ended + refused == 32, "{ended} ended, {refused} refused");
        assert_eq!(readers.long(LONG, seven).await.unwrap(), 7, "the connections have no deadline any more");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_question_ends_when_whoever_asked_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let readers = Readers::of(file(&folder));
        for _n in 0..LONG_MAX {
            timeout(Duration::from_millis(50), readers.long(LONG, endless)).await.unwrap_err();
        }
        let room = timeout(Duration::from_secs(10), readers.0.room_for_long.acquire_many(LONG_MAX)).await;
        drop(room.unwrap().unwrap());
    }

    fn file(folder: &tempfile::TempDir) -> PathBuf {
        let file = folder.path().join("a.db");
        Connection::open(&file).unwrap().execute_batch("create table t (n); insert into t values (7)").unwrap();
        file
    }

    fn seven(connection: &Connection) -> Result<i64, Error> {
        Ok(connection.prepare_cached("select n from t")?.query_row([], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn a_list_is_planned_once() {
        let folder = tempfile::tempdir().unwrap();
        let readers = Readers::of(file(&folder));
        let read = |connection: &Connection| {
            for limit in [50, 20, 50] {
                let mut statement = connection.prepare_cached("select n from t where n >= ?1 order by n limit ?2")?;
                let found: Option<i64> = statement.query_row([0, limit], |row| row.get(0)).optional()?;
                assert_eq!(found, Some(7));
            }
            let statement = connection.prepare_cached("select n from t where n >= ?1 order by n limit ?2")?;
            Ok(statement.get_status(StatementStatus::RePrepare))
        };
        assert_eq!(readers.quick(read).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn connections_share_no_pages_and_no_lock_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let options = |connection: &Connection| {
            let mut statement = connection.prepare("pragma compile_options")?;
            let options = statement.query_map([], |row| row.get::<_, String>(0))?;
            Ok(options.collect::<Result<Vec<_>, _>>()?)
        };
        let options = Readers::of(file(&folder)).long(LONG, options).await.unwrap();
        // .cargo/config.toml
        assert!(!options.iter().any(|option| option == "ENABLE_MEMORY_MANAGEMENT"), "{options:?}");
        assert!(options.iter().any(|option| option == "DEFAULT_MEMSTATUS=0"), "{options:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_read_that_is_stuck_keeps_nobody_else_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let readers = Readers::of(file(&folder));
        let (tell, told) = mpsc::channel::<()>();
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let stuck = tokio::spawn({
            let readers = readers.clone();
            let read = move |connection: &Connection| {
                begun.send(()).unwrap();
                told.recv().unwrap();
                seven(connection)
            };
            async move { readers.quick(read).await }
        });
        has_begun.await.unwrap();
        let others = tokio::spawn({
            let readers = readers.clone();
            async move {
                for _n in 0..100 {
                    assert_eq!(readers.quick(seven).await.unwrap(), 7);
                    tokio::task::yield_now().await;
                }
            }
        });
        timeout(Duration::from_secs(30), others).await.unwrap().unwrap();
        assert!(!stuck.is_finished());
        tell.send(()).unwrap();
        assert_eq!(stuck.await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn it_reads_and_writes_nothing_on_one_thread_too() {
        let folder = tempfile::tempdir().unwrap();
        let readers = Readers::of(file(&folder));
        assert_eq!(readers.quick(seven).await.unwrap(), 7);
        assert_eq!(readers.long(LONG, seven).await.unwrap(), 7);
        let write = |connection: &Connection| Ok(connection.execute("insert into t values (8)", [])?);
        assert!(matches!(readers.quick(write).await, Err(Error::File(_))));
        assert!(matches!(
            readers.long(LONG, |_connection| -> Result<(), Error> { panic!("as if") }).await,
            Err(Error::Database(sqlx::Error::WorkerCrashed))
        ));
        assert_eq!(readers.quick(seven).await.unwrap(), 7);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_asks_after_the_end_is_answered_and_leaves_nothing_open() {
        let folder = tempfile::tempdir().unwrap();
        let readers = Readers::of(file(&folder));
        assert_eq!(readers.quick(seven).await.unwrap(), 7);
        assert_eq!(readers.0.free().len(), 1);
        readers.close().await;
        assert_eq!(readers.0.free().len(), 0);
        assert_eq!(readers.quick(seven).await.unwrap(), 7);
        assert_eq!(readers.0.free().len(), 0);
    }
}
