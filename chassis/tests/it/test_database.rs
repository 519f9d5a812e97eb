//! Every test has a database of its own.

use std::time::Duration;

use chassis::postgres::{connect_options, is_transient, migrate, pool};
use chassis::testkit::{TestDatabase, eventually};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

pub(crate) static MIGRATOR: Migrator = sqlx::migrate!("tests/it/migrations");

const SOON: Duration = Duration::from_secs(10);

async fn guests(database: &TestDatabase) -> sqlx::Result<i64> {
    let count = sqlx::query_scalar("select count(*) from guest");
    count.fetch_one(&database.pool()).await
}

#[tokio::test]
async fn databases_are_migrated_apart_and_gone_afterwards() {
    let (one, other) = tokio::join!(TestDatabase::create(&MIGRATOR), TestDatabase::create(&MIGRATOR));
    one.pool().execute("insert into guest (name) values ('ada')").await.unwrap();
    assert_eq!((guests(&one).await.unwrap(), guests(&other).await.unwrap()), (1, 0));

    let name = one.url().expose().rsplit('/').next().unwrap().to_owned();
    drop(one);
    let left: bool = sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(&other.pool())
        .await
        .unwrap();
    assert!(!left);
}

#[tokio::test]
async fn a_session_acts_as_its_role_under_its_deadlines() {
    let database = TestDatabase::create(&MIGRATOR).await;
    // Roles belong to the server, so this one has the database's name and goes with it.
    let role = database.url().expose().rsplit('/').next().unwrap().replace("test_", "role_");
    let admin = database.pool();
    admin.execute(AssertSqlSafe(format!("create role {role}"))).await.unwrap();
    let options = connect_options(&database.url(), "till", Some(&role)).unwrap();
    let mut session = PgConnection::connect_with(&options).await.unwrap();

    let seen: (String, String, String) = sqlx::query_as(
        "select current_user::text, current_setting('statement_timeout'), current_setting('application_name')",
    )
    .fetch_one(&mut session)
    .await
    .unwrap();
    assert_eq!(seen, (role.clone(), "5s".to_owned(), "till".to_owned()));
    let refused = session.execute("insert into guest (name) values ('eve')").await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "42501");

    session.close().await.unwrap();
    admin.execute(AssertSqlSafe(format!("drop role {role}"))).await.unwrap();
}

#[tokio::test]
async fn a_pool_opens_all_its_connections_and_a_killed_one_is_transient() {
    let database = TestDatabase::create(&MIGRATOR).await;
    let pool = pool(connect_options(&database.url(), "till", None).unwrap(), 3);
    eventually(SOON, "three connections", || async {
        match pool.size() {
            3 => Ok(()),
            size => Err(format!("{size} connections")),
        }
    })
    .await;
    let mut connection = pool.acquire().await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut *connection).await.unwrap();
    sqlx::query("select pg_terminate_backend($1, 5000)").bind(pid).execute(&database.pool()).await.unwrap();
    let error = connection.execute("select 1").await.unwrap_err();
    assert!(is_transient(&error), "{error:?}");
}

#[tokio::test]
async fn migrating_twice_is_fine() {
    let database = TestDatabase::create(&MIGRATOR).await;
    let options = connect_options(&database.url(), "till", None).unwrap();
    migrate(&options, &MIGRATOR).await.unwrap();
    migrate(&options, &MIGRATOR).await.unwrap();
    assert_eq!(guests(&database).await.unwrap(), 0);
}
