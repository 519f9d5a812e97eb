//! What became of a transaction whose answer was lost (rules R1).
//!
//! A batch is one message, so when its answer is lost nothing is known of its transaction but what it would have left: its first
//! event. Looking for that proves nothing while the transaction may still be going on. So every lane's session holds a lock of its
//! own for as long as it lives, and the server gives that back after it has ended the session's transaction: whoever gets
//! the lock and finds no event knows that there will never be one.
//!
//! When the way to the server went silent, the server keeps the session and waits for a message that may still arrive. A session
//! that waits has no transaction, so it is ended: then the message cannot be executed any more.

use std::time::Duration;

use chassis::postgres;
use domain::{EventId, OrderId, Version};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::types::Uuid;
use tokio::time::{Instant, sleep, timeout_at};

use crate::store::Writes;

/// The first half of the locks that sessions of lanes hold ("lane"). Keys are locked by one number, which is another space.
const LANES: i32 = 0x6c61_6e65;
/// How often a session looks for a lock that nobody holds, among four thousand million.
const ATTEMPTS_MAX: usize = 8;
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is durable.
    Committed,
    /// It has left nothing behind, and will not.
    Aborted,
    /// It could not be found out in time.
    Unknown,
}

/// The lock that a session holds while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Alive(i32);

impl Alive {
    /// Takes a lock for the rest of the session's life.
    pub(super) async fn take(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        for _attempt in 0..ATTEMPTS_MAX {
            let alive = Self(fastrand::i32(..));
            if alive.try_lock(connection).await? {
                return Ok(alive);
            }
        }
        Err(sqlx::Error::Protocol("no lock is free for this session".to_owned()))
    }

    async fn try_lock(self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("select pg_try_advisory_lock($1, $2)").bind(LANES).bind(self.0).fetch_one(connection).await
    }

    /// Ends the session that holds the lock if it waits for a message.
    async fn end_idle(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // Sessions of one login may end each other's, and the role that the service becomes may not.
        sqlx::raw_sql("set role none").execute(&mut *connection).await?;
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_locks join pg_stat_activity using (pid)
             where locktype = 'advisory' and granted and classid::int8 = $1 and objid::int8 = $2 and objsubid = 2
               and database = (select oid from pg_database where datname = current_database()) and state = 'idle'",
        )
        .bind(i64::from(LANES.cast_unsigned()))
        .bind(i64::from(self.0.cast_unsigned()))
        .execute(connection)
        .await?;
        Ok(())
    }
}

/// The event by which a transaction is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    order_id: OrderId,
    version: Version,
    event_id: EventId,
}

impl Trace {
    /// None when answers alone are written: doing that again is harmless, because the keys tell what was done.
    pub(super) fn of(writes: &Writes) -> Option<Self> {
        let recorded = &writes.events.first()?.recorded;
        Some(Self { order_id: recorded.order_id, version: recorded.version, event_id: recorded.event_id })
    }

    /// Whether the event is there. Says nothing of a transaction that may still be going on.
    pub(super) async fn is_left(&self, connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let found: Option<Uuid> =
            sqlx::query_scalar("select event_id from events where order_id = $1 and version = $2")
                .bind(self.order_id.0)
                .bind(i32::try_from(self.version.0).unwrap_or(-1))
                .fetch_optional(connection)
                .await?;
        Ok(found == Some(self.event_id.0))
    }
}

/// Asks on new connections, until the deadline, how the last transaction of a lost session ended.
pub(super) async fn resolve(options: &PgConnectOptions, alive: Alive, trace: &Trace, deadline: Instant) -> Fate {
    loop {
        match timeout_at(deadline, ask(options, alive, trace)).await {
            Err(_elapsed) => return Fate::Unknown,
            Ok(Ok(fate @ (Fate::Committed | Fate::Aborted))) => return fate,
            // The session lives, or the server is not back yet.
            Ok(Ok(Fate::Unknown) | Err(_)) => sleep(PAUSE).await,
        }
    }
}

async fn ask(options: &PgConnectOptions, alive: Alive, trace: &Trace) -> Result<Fate, sqlx::Error> {
    let mut connection = postgres::connect(options).await?;
    // In this order: the event is looked for after the session was seen to be over.
    let over = alive.try_lock(&mut connection).await?;
    let fate = match trace.is_left(&mut connection).await? {
        true => Fate::Committed,
        false if over => Fate::Aborted,
        false => {
            alive.end_idle(&mut connection).await?;
            Fate::Unknown
        }
    };
    postgres::disconnect(connection).await;
    Ok(fate)
}
