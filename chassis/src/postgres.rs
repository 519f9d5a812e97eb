//! PostgreSQL: how we connect, and which servers we refuse.

mod fit;
mod pool;

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection};

use crate::config::Secret;
pub use fit::{assert_ours, assert_settings};
pub use pool::{ask, in_time, is_alive, pool};

/// How long opening a session may take, from the first packet to the server's word that it is ready.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// How long migrations may take, with the wait for another node that migrates.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// How long saying goodbye to a server may take. One that is not told notices by itself.
const CLOSE_DEADLINE: Duration = Duration::from_millis(500);

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
    /// The tables of another program are there.
    #[error(
        "the database belongs to another program: its first migration is `{theirs}`, ours is `{ours}`; each program needs a database of its own, so \
         look at the database urls of both"
    )]
    AnotherProgram {
        /// Its first migration.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// Tables have no place.
    #[error("the search_path names no schema that exists: create it, or correct the database url")]
    NoSchema,
    /// A pooler dropped them.
    #[error(
        "the settings of the session do not reach PostgreSQL: a pooler such as PgBouncer drops them (ignore_startup_parameters); name PostgreSQL \
         itself in the database url"
    )]
    SettingsLost,
    /// A migration failed, or the database is newer than this binary.
    #[error("the migrations failed")]
    Migrate(#[source] MigrateError),
    /// The migrations did not end, or the server stopped answering. What was not finished is rolled back.
    #[error("the migrations did not end within {} minutes", MIGRATE_DEADLINE.as_secs() / 60)]
    MigrateTooLong,
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

/// Options of one session: the URL, our name, the server's deadlines, and optionally a role to act as.
///
/// The server's deadlines end a statement and keep the session. A server that cannot be reached any more keeps none of
/// them, so whoever waits needs a deadline of its own as well: [`ask`], [`in_time`], [`connect`].
///
/// Whatever decides what our statements mean is set here for every session, because the defaults of a role or a
/// database may be anything. `search_path` is left alone: where the tables are is the operator's choice.
/// `role` takes effect at connect, as `set role` would.
///
/// # Errors
///
/// When the URL or the role cannot be parsed.
pub fn connect_options(url: &Secret, application_name: &str, role: Option<&str>) -> Result<PgConnectOptions, Error> {
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_quotes_the_url| Error::Url)?;
    let options = options.application_name(application_name).options([
        fit::MARK,
        ("statement_timeout", "5s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
        // A lane or a relay may be idle for a night.
        ("idle_session_timeout", "0"),
        // Statements wait for each other's locks and then look again, which no other level does (rules R4).
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_read_only", "off"),
        ("default_transaction_deferrable", "off"),
        ("standard_conforming_strings", "on"),
        // When a client is gone without a word, the server ends its session, and with it its locks, within 15 seconds.
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_keepalives_count", "5"),
        ("tcp_user_timeout", "15s"),
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

/// Opens a session of its own, within a deadline.
///
/// # Errors
///
/// When the server cannot be reached, refuses us, or does not answer in time.
pub async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    in_time(CONNECT_DEADLINE, options.connect()).await.map_err(fit::explained)
}

/// Closes a session. A server that does not answer is not waited for.
pub async fn disconnect(connection: PgConnection) {
    let _gone_anyway = in_time(CLOSE_DEADLINE, connection.close()).await;
}

fn is_identifier(role: &str) -> bool {
    !role.is_empty() && role.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Brings the database up to date, under the migrator's own advisory lock.
///
/// # Errors
///
/// When the server cannot be reached or a migration fails.
pub async fn migrate(options: &PgConnectOptions, migrator: &'static Migrator) -> Result<(), Error> {
    // A migration may take longer than a request, and waits for another node that migrates.
    let patient = options.clone().options([("statement_timeout", "0"), ("lock_timeout", "0")]);
    let mut connection = connect(&patient).await.map_err(Error::Unreachable)?;
    assert_settings(&mut connection).await?;
    assert_ours(&mut connection, migrator).await?;
    // Not `run`: of its future the compiler cannot see that it may move between threads.
    let migrated = migrator.run_direct(None, &mut connection, false);
    match tokio::time::timeout(MIGRATE_DEADLINE, migrated).await {
        Ok(migrated) => migrated.map_err(Error::Migrate)?,
        Err(_elapsed) => return Err(Error::MigrateTooLong),
    }
    disconnect(connection).await;
    Ok(())
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

/// What the server has run out of, when that is why it refused: disk, memory or connections (class 53).
pub fn exhausted(error: &sqlx::Error) -> Option<&'static str> {
    match error.as_database_error()?.code()?.as_ref() {
        "53100" => Some("the disk is full"),
        "53200" => Some("the memory is used up"),
        "53300" => Some("the connections are used up"),
        code if code.starts_with("53") => Some("a resource is used up"),
        _ => None,
    }
}

/// Whether the server refuses a value of the statement (SQLSTATE class 22).
///
/// Such as a character that its encoding does not have, or a number out of range. The same value is refused every time, so
/// the fault is with whoever sent it.
pub fn is_data_exception(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|database| database.code());
    code.is_some_and(|code| code.starts_with("22"))
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
        for meaning in ["default_transaction_isolation=read\\ committed", "default_transaction_read_only=off"] {
            assert!(text.contains(meaning), "{text}");
        }
        assert!(!text.contains("search_path"), "{text}");
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
