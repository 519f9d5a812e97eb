//! PostgreSQL: how we connect, and which servers we refuse.

use std::str::FromStr as _;
use std::time::Duration;

use futures_util::future::join_all;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{Connection as _, PgPool};

use crate::config::Secret;

/// How long a request waits for a connection of the pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection lives; replacing it now and then returns what a server process has hoarded.
const CONNECTION_LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL cannot be parsed. The source is left out: it quotes the URL, which holds the password.
    #[error("the database url cannot be parsed")]
    Url,
    /// The role is not a plain identifier.
    #[error("the database role {role:?} is not a plain identifier")]
    Role {
        /// The role given.
        role: String,
    },
    /// The server cannot be reached or refuses us.
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// A migration failed, or the database is newer than this binary.
    #[error("the migrations failed")]
    Migrate(#[source] MigrateError),
}

/// A server that may lose what it has acknowledged (rules R20).
#[derive(Debug, thiserror::Error)]
pub enum Unsafe {
    /// A setting says so.
    #[error("the server may lose acknowledged commits: {setting} is {value}")]
    Setting {
        /// Which setting.
        setting: String,
        /// Its value.
        value: String,
    },
    /// We could not find out.
    #[error("the durability of the server cannot be verified")]
    Unverified(#[source] sqlx::Error),
}

/// Options of one session: the URL, our name, our deadlines, and optionally a role to act as.
///
/// Deadlines are the server's, because a deadline of ours would drop a future in the middle of a
/// transaction (rules R2). `role` takes effect at connect, as `set role` would.
///
/// # Errors
///
/// When the URL or the role cannot be parsed.
pub fn connect_options(url: &Secret, application_name: &str, role: Option<&str>) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_quotes_the_url| Error::Url)?;
    let options = options.application_name(application_name).options([
        ("statement_timeout", "5s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        // Short statements: compiling one takes longer than running it, and a planner that is told to prefer an index
        // believes the other way to be expensive enough for it (18 ms instead of 0.2 for saving the relay's progress).
        ("jit", "off"),
        // For the same reason: starting a process and its shared memory takes longer than to count what the relay has not
        // published yet, which was done with two of them for every batch.
        ("max_parallel_workers_per_gather", "0"),
    ]);
    match role {
        None => Ok(options),
        Some(role) if is_identifier(role) => Ok(options.options([("role", role)])),
        Some(role) => Err(Error::Role { role: role.to_owned() }),
    }
}

fn is_identifier(role: &str) -> bool {
    !role.is_empty() && role.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A pool of exactly `connections` connections, opened in the background at once.
///
/// Must be called on a Tokio runtime. An unreachable server is no error here, but one of every acquire.
///
/// As many at least as at most, because the pool, once it decided to open a connection, does not look at
/// those that come back meanwhile. Nothing is tested before use: that is a round trip each time, and every
/// caller has to cope with a connection that breaks one statement later anyway.
pub fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    let pool = PgPoolOptions::new()
        .min_connections(connections)
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .max_lifetime(CONNECTION_LIFETIME_MAX)
        .idle_timeout(None)
        .test_before_acquire(false)
        .connect_lazy_with(options);
    tokio::spawn(open_all(pool.clone(), connections));
    pool
}

/// Opens every connection of a lazy pool. With a lifetime and without an idle timeout, sqlx 0.9 would open
/// the missing ones only when the first lifetime is over. Ends within [`ACQUIRE_TIMEOUT`].
async fn open_all(pool: PgPool, connections: u32) {
    let held = join_all((0..connections).map(|_| pool.acquire())).await;
    let opened = held.iter().filter(|connection| connection.is_ok()).count();
    tracing::debug!(opened, connections, "the pool is open");
}

/// Brings the database up to date, under the migrator's own advisory lock.
///
/// # Errors
///
/// When the server cannot be reached or a migration fails.
pub async fn migrate(options: &PgConnectOptions, migrator: &'static Migrator) -> Result<(), Error> {
    // A migration may take longer than a request, and waits for another node that migrates.
    let patient = options.clone().options([("statement_timeout", "0"), ("lock_timeout", "0")]);
    let mut connection = PgConnection::connect_with(&patient).await.map_err(Error::Unreachable)?;
    // Not `run`: of its future the compiler cannot see that it may move between threads.
    migrator.run_direct(None, &mut connection, false).await.map_err(Error::Migrate)?;
    connection.close().await.map_err(Error::Unreachable)
}

/// Refuses a server whose settings let an acknowledged commit get lost (rules R20).
///
/// `synchronous_commit = local` is fine on a server alone, and unsafe where a synchronous standby is named.
///
/// # Errors
///
/// [`Unsafe::Setting`] naming the first such setting, or [`Unsafe::Unverified`].
pub async fn assert_durable(connection: &mut PgConnection) -> Result<(), Unsafe> {
    let settings: Vec<(String, String)> = sqlx::query_as(
        "select name, setting from pg_settings
          where (name in ('fsync', 'full_page_writes') and setting = 'off')
             or (name = 'synchronous_commit' and setting = 'off')
             or (name = 'synchronous_commit' and setting = 'local'
                 and current_setting('synchronous_standby_names') <> '')
          order by name",
    )
    .fetch_all(connection)
    .await
    .map_err(Unsafe::Unverified)?;
    match settings.into_iter().next() {
        None => Ok(()),
        Some((setting, value)) => Err(Unsafe::Setting { setting, value }),
    }
}

/// Whether the same work may succeed when it is done again on a new connection.
///
/// After an error at commit the outcome is unknown either way; ask before repeating (rules R1).
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(database) => database.code().is_some_and(|code| is_transient_code(&code)),
        _ => false,
    }
}

fn is_transient_code(code: &str) -> bool {
    match code {
        // Serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => true,
        // Query cancelled (also by a timeout), and the server going down, crashing, starting.
        "57014" | "57P01" | "57P02" | "57P03" => true,
        // Connection exceptions, and a transaction that was idle too long.
        "25P03" => true,
        // Out of connections, memory, disk.
        _ => code.starts_with("53") || code.starts_with("08"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_deadlines_a_name_and_a_role() {
        let url = Secret::new("postgres://u:hunter2@127.0.0.1:1/shop");
        let options = connect_options(&url, "till", Some("cashier")).unwrap();
        assert_eq!(options.get_application_name(), Some("till"));
        let text = options.get_options().unwrap();
        for setting in ["statement_timeout=5s", "lock_timeout=2s", "role=cashier"] {
            assert!(text.contains(setting), "{text}");
        }
        for costly in ["jit=off", "max_parallel_workers_per_gather=0"] {
            assert!(text.contains(costly), "{text}");
        }
    }

    #[test]
    fn a_bad_url_or_role_is_refused_without_quoting_the_password() {
        let error = connect_options(&Secret::new("postgres://u:hunter2@h:notaport/d"), "till", None).unwrap_err();
        assert!(!crate::telemetry::ErrorChain(&error).to_string().contains("hunter2"));
        let url = Secret::new("postgres://127.0.0.1/shop");
        assert!(matches!(connect_options(&url, "till", Some("a b")), Err(Error::Role { .. })));
    }

    #[test]
    fn what_may_pass_is_told_from_what_will_not() {
        for code in ["40001", "40P01", "55P03", "57014", "57P01", "53300", "08006"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["23505", "42601", "22P05", "25P02"] {
            assert!(!is_transient_code(code), "{code}");
        }
        assert!(is_transient(&sqlx::Error::PoolTimedOut));
        assert!(!is_transient(&sqlx::Error::RowNotFound));
    }
}
