//! Where and as whom the schema can be made, and databases that are somebody else's.

use std::borrow::Cow;
use std::sync::Arc;

use chassis::config::Secret;
use chassis::postgres::{self, connect_options};
use chassis::telemetry::ErrorChain;
use chassis::testkit::TestDatabase;
use command::api;
use command::executor::{Executor, Setup};
use command::schema::{MIGRATOR, is_up_to_date, migrate};
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, PgPool};
use tokio::sync::Notify;

use crate::world::{limits, new_order, usd};

static NOTHING: Migrator = Migrator { migrations: Cow::Borrowed(&[]), ..Migrator::DEFAULT };
static READERS: Migrator = sqlx::migrate!("../migrations/query/postgres");

/// A database in which nobody has migrated anything.
async fn empty() -> TestDatabase {
    let database = TestDatabase::create(&NOTHING).await;
    run(&database.pool(), "drop table _sqlx_migrations".to_owned()).await;
    database
}

async fn run(pool: &PgPool, statements: String) {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(pool).await.unwrap();
}

async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

/// `url` with another user, and with parameters.
fn changed(url: &Secret, user: Option<&str>, parameters: &str) -> Secret {
    let (scheme, rest) = url.expose().split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    let authority = user.map_or_else(|| authority.to_owned(), |user| format!("{user}:secret@{host}"));
    let joint = if path.contains('?') { '&' } else { '?' };
    let parameters = if parameters.is_empty() { String::new() } else { format!("{joint}{parameters}") };
    Secret::new(format!("{scheme}://{authority}/{path}{parameters}"))
}

/// Places an order through lanes that connect to `url` as the service does.
async fn places_an_order(url: &Secret) {
    let connect = connect_options(url, "order-command-test", Some("order_command")).unwrap();
    let (executor, lanes) = Executor::new(&Setup {
        connect,
        limits: limits(),
        render: api::render,
        committed: Arc::new(Notify::new()),
        default_currency: usd(),
    });
    let running: Vec<_> = lanes.into_iter().map(|lane| tokio::spawn(lane.run())).collect();
    let answer = executor.execute(new_order("customer")).await.unwrap();
    assert_eq!(answer.reply.status, 201, "{}", answer.reply.body);
    drop(executor);
    futures_util::future::join_all(running).await;
}

#[tokio::test]
async fn an_owner_who_may_not_create_roles_migrates_when_the_role_is_granted() {
    // Makes the role, as an administrator does.
    let _administrators = TestDatabase::create(&MIGRATOR).await;
    let database = empty().await;
    let pool = database.pool();
    let name: String = sqlx::query_scalar("select current_database()::text").fetch_one(&pool).await.unwrap();
    let owner = format!("owner_of_{name}");
    run(
        &pool,
        format!(
            "create role {owner} login password 'secret' nosuperuser nocreaterole;
             alter database {name} owner to {owner}; alter schema public owner to {owner}"
        ),
    )
    .await;
    let url = changed(&database.url(), Some(&owner), "");
    let refused = migrate(&url).await.unwrap_err();
    let words = ErrorChain(&refused).to_string();
    assert!(words.contains("may not become the role order_command"), "{words}");
    run(&pool, format!("grant order_command to {owner}")).await;
    migrate(&url).await.unwrap();
    migrate(&url).await.unwrap();
    places_an_order(&url).await;
    assert_eq!(count(&pool, "select count(*) from events").await, 1);
    run(&pool, format!("reassign owned by {owner} to current_user; drop owned by {owner}; drop role {owner}")).await;
}

#[tokio::test]
async fn the_schema_is_made_where_the_search_path_points() {
    let database = empty().await;
    let pool = database.pool();
    let url = changed(&database.url(), None, "options=-csearch_path%3Dshop");
    let nowhere = migrate(&url).await.unwrap_err();
    assert!(matches!(nowhere, postgres::Error::NoSchema), "{nowhere}");
    run(&pool, "create schema shop".to_owned()).await;
    migrate(&url).await.unwrap();
    places_an_order(&url).await;
    for shop in ["events", "outbox", "orders"] {
        let rows = AssertSqlSafe(format!("select count(*) from shop.{shop}"));
        assert_eq!(sqlx::query_scalar::<_, i64>(rows).fetch_one(&pool).await.unwrap(), 1, "{shop}");
    }
    let elsewhere = "select count(*) from pg_class where relnamespace = 'public'::regnamespace";
    assert_eq!(count(&pool, elsewhere).await, 0, "nothing is in public");
    let functions = "select count(*) from pg_proc where pronamespace = 'shop'::regnamespace and prosecdef
                     and not array_to_string(proconfig, ' ') like '%search_path=shop, pg_temp%'";
    assert_eq!(count(&pool, functions).await, 0, "a function that runs as its owner on the tables of another schema");
}

#[tokio::test]
async fn a_database_of_the_earlier_form_is_recognised_and_one_that_was_changed_is_not() {
    let database = TestDatabase::create(&MIGRATOR).await;
    let pool = database.pool();
    let earlier = "update _sqlx_migrations set checksum = decode(
        '9ff397f3e6cb6902d48751be7e827230e1b9e6ba4bfa123755b3a8258aff028a0439725ae8d33fc5a408a3855c9c4d27', 'hex')
        where version = 2";
    run(&pool, earlier.to_owned()).await;
    migrate(&database.url()).await.unwrap();
    let unknown = "update _sqlx_migrations set checksum = sha384('something else') where version = 2";
    run(&pool, unknown.to_owned()).await;
    assert!(matches!(migrate(&database.url()).await.unwrap_err(), postgres::Error::Migrate(_)));
    let mut connection = pool.acquire().await.unwrap();
    assert!(is_up_to_date(&mut connection).await.unwrap());
    run(&pool, "delete from _sqlx_migrations where version = 3".to_owned()).await;
    assert!(!is_up_to_date(&mut connection).await.unwrap(), "a hole in the history");
}

#[tokio::test]
async fn the_database_of_the_reader_is_named_as_such() {
    let database = TestDatabase::create(&READERS).await;
    let refused = migrate(&database.url()).await.unwrap_err();
    assert!(matches!(refused, postgres::Error::AnotherProgram { .. }), "{refused}");
    let words = refused.to_string();
    assert!(words.contains("`orders`") && words.contains("`log`") && !words.contains('\n'), "{words}");
    // And the other way round, which the reader's migrations meet.
    let database = TestDatabase::create(&MIGRATOR).await;
    let options = connect_options(&database.url(), "reader", None).unwrap();
    let refused = postgres::migrate(&options, &READERS).await.unwrap_err();
    assert!(matches!(refused, postgres::Error::AnotherProgram { .. }), "{refused}");
}

#[tokio::test]
async fn sessions_whose_settings_get_lost_are_refused() {
    let database = TestDatabase::create(&MIGRATOR).await;
    let options = connect_options(&database.url(), "direct", None).unwrap();
    postgres::assert_settings(&mut postgres::connect(&options).await.unwrap()).await.unwrap();
    // As behind a pooler that ignores what a session asks for.
    let mut bare = database.pool().acquire().await.unwrap();
    let refused = postgres::assert_settings(&mut bare).await.unwrap_err();
    assert!(refused.to_string().contains("PgBouncer"), "{refused}");
}
