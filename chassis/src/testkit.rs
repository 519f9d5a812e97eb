//! For tests: a database of its own for each, topic names, and waiting without sleeping.
//!
//! Servers are found by environment; a test without them fails with one clear line, it is never skipped.
#![expect(clippy::panic, reason = "this module runs in tests only; failing is its job")]
#![expect(clippy::disallowed_methods, reason = "the environment names the servers of a test run")]

pub mod asking;

pub mod contract;

pub mod limits;

pub mod wire;

use std::fmt::Write as _;
use std::future::Future;
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgPool};
use tokio::time::Instant;
use uuid::Uuid;

use crate::config::Secret;
use crate::kafka::Brokers;
use crate::telemetry::ErrorChain;

/// Connections of the pool a test gets.
const POOL_CONNECTIONS_MAX: u32 = 10;

/// How often [`eventually`] looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// A database for one test, cloned from a migrated template; dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    server: PgConnectOptions,
    name: String,
    url: Secret,
    pool: PgPool,
}

impl TestDatabase {
    /// A new database with all of `migrator`'s migrations, on the server of `TEST_DATABASE_URL`.
    ///
    /// # Panics
    ///
    /// When there is no such server or a migration fails.
    pub async fn create(migrator: &'static Migrator) -> Self {
        let base = required("TEST_DATABASE_URL");
        match Self::try_create(&base, migrator).await {
            Ok(database) => database,
            Err(error) => panic!("no test database: {}", ErrorChain(error.as_ref())),
        }
    }

    /// The superuser's URL of this database.
    pub fn url(&self) -> Secret {
        self.url.clone()
    }

    /// The superuser's pool on this database.
    pub fn pool(&self) -> PgPool {
        self.pool.clone()
    }

    async fn try_create(base: &str, migrator: &'static Migrator) -> Result<Self, Failure> {
        let server = PgConnectOptions::from_str(base)?.application_name("testkit");
        let template = template(&server, migrator).await?;
        let name = format!("test_{}", Uuid::now_v7().simple());
        let mut connection = PgConnection::connect_with(&server).await?;
        execute(&mut connection, format!("create database {name} template {template}")).await?;
        connection.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .connect_lazy_with(server.clone().database(&name));
        let url = Secret::new(with_database(base, &name));
        Ok(Self { server, name, url, pool })
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let drop_it = format!("drop database if exists {} with (force)", self.name);
        let server = self.server.clone();
        // A runtime and a thread of its own: this may run on the test's only async thread, or outside any.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let mut connection = PgConnection::connect_with(&server).await?;
                execute(&mut connection, drop_it).await?;
                Ok::<_, Failure>(())
            })
        });
        if let Ok(Err(error)) = dropped.join() {
            tracing::warn!(error = %ErrorChain(error.as_ref()), "a test database stays behind");
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The name of the migrated template, built first if nobody has yet.
async fn template(server: &PgConnectOptions, migrator: &'static Migrator) -> Result<String, Failure> {
    let mut connection = PgConnection::connect_with(server).await?;
    let name = template_name(migrator);
    if !exists(&mut connection, &name).await? {
        // Test processes run side by side: one builds, the others wait for it here. Closing the session
        // gives the lock back, however this function ends.
        sqlx::query("select pg_advisory_lock(hashtext($1))").bind(&name).execute(&mut connection).await?;
        if !exists(&mut connection, &name).await? {
            build(&mut connection, server, &name, migrator).await?;
        }
    }
    connection.close().await?;
    Ok(name)
}

/// Builds under another name and renames: a template that exists is complete.
async fn build(
    connection: &mut PgConnection,
    server: &PgConnectOptions,
    name: &str,
    migrator: &'static Migrator,
) -> Result<(), Failure> {
    let half = format!("{name}_half");
    execute(connection, format!("drop database if exists {half} with (force)")).await?;
    execute(connection, format!("create database {half}")).await?;
    let mut inside = PgConnection::connect_with(&server.clone().database(&half)).await?;
    migrator.run(&mut inside).await?;
    inside.close().await?;
    execute(connection, format!("alter database {half} rename to {name}")).await?;
    Ok(())
}

async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(connection)
        .await
}

/// Runs a statement that takes no parameters, such as one that names a database.
async fn execute(connection: &mut PgConnection, statement: String) -> Result<(), sqlx::Error> {
    // The names in it are ours: a prefix and hexadecimal digits.
    connection.execute(AssertSqlSafe(statement)).await?;
    Ok(())
}

/// A name that changes when any migration does.
fn template_name(migrator: &Migrator) -> String {
    let mut all = Vec::new();
    for migration in migrator.iter() {
        all.extend_from_slice(&migration.version.to_be_bytes());
        all.extend_from_slice(&migration.checksum);
    }
    format!("template_{}", Uuid::new_v5(&Uuid::NAMESPACE_OID, &all).simple())
}

/// `base` with another database in its path.
fn with_database(base: &str, name: &str) -> String {
    let (address, parameters) = base.split_once('?').map_or((base, None), |(a, p)| (a, Some(p)));
    let authority_at = address.find("://").map_or(0, |at| at + 3);
    let end = address[authority_at..].find('/').map_or(address.len(), |at| authority_at + at);
    let mut url = format!("{}/{name}", &address[..end]);
    if let Some(parameters) = parameters {
        // Writing to a string cannot fail.
        let _always_ok = write!(url, "?{parameters}");
    }
    url
}

/// The brokers of `TEST_KAFKA_BROKERS`.
///
/// # Panics
///
/// When it is not set.
pub fn brokers() -> Brokers {
    Brokers(required("TEST_KAFKA_BROKERS"))
}

/// A topic name that no other test has.
pub fn topic(prefix: &str) -> String {
    format!("{prefix}.{}", Uuid::now_v7().simple())
}

fn required(variable: &str) -> String {
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("{variable} is not set: run `make test`, which starts the servers"),
    }
}

/// Looks until `probe` says `Ok`, and returns what it said.
///
/// Level-triggered: it does not matter when the thing happens, only that it is so when we look.
///
/// # Panics
///
/// When `deadline` has passed, with `what` was awaited and the last status seen.
pub async fn eventually<T, F, Fut>(deadline: Duration, what: &str, mut probe: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + deadline;
    loop {
        let status = match probe().await {
            Ok(value) => return value,
            Err(status) => status,
        };
        if Instant::now() >= end {
            panic!("not within {} ms: {what}; last status: {status}", deadline.as_millis());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        for (base, expected) in [
            ("postgres://postgres@127.0.0.1:1/postgres", "postgres://postgres@127.0.0.1:1/x"),
            ("postgres://h", "postgres://h/x"),
            ("postgres://h/a?sslmode=disable", "postgres://h/x?sslmode=disable"),
            ("postgres:///a?host=/tmp", "postgres:///x?host=/tmp"),
        ] {
            assert_eq!(with_database(base, "x"), expected);
        }
    }

    #[test]
    fn topics_have_names_of_their_own() {
        assert_ne!(topic("t"), topic("t"));
        assert!(topic("orders.events").starts_with("orders.events."));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_value() {
        let mut looks = 0;
        let seen = eventually(Duration::from_secs(5), "the third look", || {
            looks += 1;
            std::future::ready(if looks == 3 { Ok(looks) } else { Err(format!("look {looks}")) })
        })
        .await;
        assert_eq!(seen, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_vain_tells_the_last_status() {
        let wait =
            tokio::spawn(eventually(Duration::from_secs(1), "rain", || async { Err::<(), _>("dry".to_owned()) }));
        let payload = wait.await.unwrap_err().into_panic();
        let text = crate::tasks::payload_text(payload.as_ref());
        assert_eq!(text, "not within 1000 ms: rain; last status: dry");
    }
}
