//! The way to the database stops carrying anything, and connections stay open.

use std::time::{Duration, Instant};

use chassis::postgres::{ask, connect, connect_options, pool};
use chassis::testkit::wire::{Newcomers, Wire};
use chassis::testkit::{TestDatabase, eventually};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::test_database::MIGRATOR;

const DEADLINE: Duration = Duration::from_millis(300);

async fn database() -> (TestDatabase, Wire, PgConnectOptions) {
    let database = TestDatabase::create(&MIGRATOR).await;
    let options = connect_options(&database.url(), "till", None).unwrap();
    let wire = Wire::to(options.get_host(), options.get_port()).await;
    let options = options.host("127.0.0.1").port(wire.addr().port());
    (database, wire, options)
}

async fn one(pool: &PgPool) -> Result<i32, sqlx::Error> {
    ask(pool, DEADLINE, |connection| Box::pin(sqlx::query_scalar("select 1").fetch_one(connection))).await
}

#[tokio::test]
async fn a_pool_whose_connections_go_silent_fails_in_time_and_then_serves_again() {
    let (_database, wire, options) = database().await;
    let pool = pool(options, 4);
    for _ in 0..8 {
        assert_eq!(one(&pool).await.unwrap(), 1);
    }
    wire.silence_present();
    let silenced = Instant::now();
    let mut failed = 0;
    // Each connection fails one question at most: a silent one is never lent a second time.
    while one(&pool).await.is_err() {
        failed += 1;
        assert!(failed <= 4, "{failed} questions were not answered");
    }
    assert!(silenced.elapsed() < Duration::from_secs(4), "{:?}", silenced.elapsed());
    for _ in 0..8 {
        assert_eq!(one(&pool).await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_rested_connection_that_went_silent_is_replaced_before_it_is_lent() {
    let (_database, wire, options) = database().await;
    let pool = pool(options, 1);
    assert_eq!(one(&pool).await.unwrap(), 1);
    let lent = Instant::now();
    eventually(Duration::from_secs(5), "the connection has rested for longer than is trusted", || {
        let rested = lent.elapsed();
        std::future::ready(if rested > Duration::from_millis(1_200) { Ok(()) } else { Err(format!("{rested:?}")) })
    })
    .await;
    wire.silence_present();
    assert_eq!(one(&pool).await.unwrap(), 1, "the test before use found it");
}

#[tokio::test]
async fn an_asker_that_goes_away_takes_its_connection_with_it() {
    let (_database, _wire, options) = database().await;
    let pool = pool(options, 1);
    let sleeps = ask(&pool, Duration::from_secs(60), |connection| {
        Box::pin(async move { sqlx::query("select pg_sleep(60)").execute(connection).await.map(drop) })
    });
    assert!(tokio::time::timeout(DEADLINE, sleeps).await.is_err());
    assert_eq!(one(&pool).await.unwrap(), 1);
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_not_waited_for() {
    let (_database, wire, options) = database().await;
    wire.newcomers(Newcomers::Silent);
    let asked = Instant::now();
    let error = connect(&options).await.unwrap_err();
    assert!(matches!(&error, sqlx::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn defaults_of_the_database_do_not_reach_our_sessions() {
    let (database, _wire, options) = database().await;
    for default in [
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_read_only = on",
        "lock_timeout = '1h'",
    ] {
        let name = options.get_database().unwrap();
        let alter = format!("alter database {name} set {default}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(&database.pool()).await.unwrap();
    }
    let mut connection = connect(&options).await.unwrap();
    for (setting, value) in
        [("transaction_isolation", "read committed"), ("transaction_read_only", "off"), ("lock_timeout", "2s")]
    {
        let found: String =
            sqlx::query_scalar("select current_setting($1)").bind(setting).fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, value, "{setting}");
    }
}
