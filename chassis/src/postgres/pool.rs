//! Pools, and questions to them that end in time.
//!
//! A server's own deadlines do not help when the way to it is gone: a proxy or a firewall may stop forwarding and leave
//! the connection open. sqlx sets neither TCP keep-alive nor a user time-out and gives no access to the socket, so
//! every wait has a deadline here. A connection that missed one is closed and never returned: what it would answer
//! later belongs to nobody (rules R2).

use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool, Postgres};
use tokio::time::timeout;

/// How long a request waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection lives; replacing it now and then returns what a server process has hoarded.
const CONNECTION_LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// A connection that answered so recently is used without a test.
const IDLE_TRUSTED: Duration = Duration::from_secs(1);

/// How long a test of a connection may take.
const TEST_DEADLINE: Duration = Duration::from_millis(500);

/// A pool of exactly `connections` connections, opened in the background at once.
///
/// Must be called on a Tokio runtime. An unreachable server is no error here, but one of every acquire.
///
/// As many at least as at most, because the pool, once it decided to open a connection, does not look at
/// those that come back meanwhile. A connection is tested only after a moment's rest: a test is a round trip.
pub fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    let pool = PgPoolOptions::new()
        .min_connections(connections)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME_MAX)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(|connection, meta| Box::pin(is_alive(connection, meta.idle_for)))
        .connect_lazy_with(options);
    tokio::spawn(open_all(pool.clone(), connections));
    pool
}

/// Tests a connection that has rested, within a deadline. For `before_acquire`: an error closes the connection without
/// another word to it, and the pool opens a new one.
///
/// # Errors
///
/// When the connection does not answer.
pub async fn is_alive(connection: &mut PgConnection, idle_for: Duration) -> Result<bool, sqlx::Error> {
    if idle_for > IDLE_TRUSTED {
        in_time(TEST_DEADLINE, connection.ping()).await?;
    }
    Ok(true)
}

/// Opens every connection of a lazy pool. With a lifetime and without an idle timeout, sqlx 0.9 would open
/// the missing ones only when the first lifetime is over. Ends within [`ACQUIRE_TIMEOUT`].
async fn open_all(pool: PgPool, connections: u32) {
    let held = join_all((0..connections).map(|_| pool.acquire())).await;
    let opened = held.iter().filter(|connection| connection.is_ok()).count();
    tracing::debug!(opened, connections, "the pool is open");
}

/// Waits for an answer of the database no longer than `deadline`. After an error the connection must be dropped, not
/// used again: [`ask`] does that for a pool.
///
/// # Errors
///
/// The database's, or an I/O error of kind `TimedOut`.
pub async fn in_time<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(deadline, answer).await.unwrap_or_else(|_elapsed| {
        let text = format!("the database did not answer within {} ms", deadline.as_millis());
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into())
    })
}

/// Asks something on a connection of the pool and waits for the answer no longer than `deadline`.
///
/// A connection that does not answer in time, or whose asker goes away, is closed. How long to wait for a connection is
/// the pool's setting.
///
/// # Errors
///
/// As [`in_time`].
pub async fn ask<T>(
    pool: &PgPool,
    deadline: Duration,
    question: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, sqlx::Error>> + Send,
) -> Result<T, sqlx::Error> {
    let mut borrowed = Borrowed(Some(pool.acquire().await?));
    let answer = match &mut borrowed.0 {
        Some(connection) => in_time(deadline, question(connection)).await,
        None => Err(sqlx::Error::PoolClosed),
    };
    if matches!(&answer, Ok(_) | Err(sqlx::Error::Database(_) | sqlx::Error::RowNotFound)) {
        borrowed.give_back();
    }
    answer
}

/// A pool's connection that is closed unless it is given back.
struct Borrowed(Option<PoolConnection<Postgres>>);

impl Borrowed {
    /// Returns the connection to its pool. The pool tests it first, without a deadline of its own.
    fn give_back(mut self) {
        if let Some(mut connection) = self.0.take() {
            let returned = connection.return_to_pool();
            tokio::spawn(async move {
                let _closed_when_elapsed = timeout(TEST_DEADLINE, returned).await;
            });
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
