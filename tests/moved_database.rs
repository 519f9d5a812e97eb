use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use chassis::testkit::eventually;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::world::client::{Answer, TWO_AND_ONE};
use crate::world::load::Load;
use crate::world::process::{Service, Spec};
use crate::world::settings;
use crate::world::{SOON, World};

/// A database server of the test's own.
struct Server {
    run: Service,
    url: String,
    pool: PgPool,
    _directory: TempDir,
}

impl Server {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The server may run as another user than the tests.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let port = settings::free_port();
        let data = directory.path().display().to_string();
        let spec = Spec {
            name: "another-server".to_owned(),
            program: settings::program("order-dev"),
            args: vec!["--data".to_owned(), data, "postgres".to_owned()],
            envs: vec![("POSTGRES_PORT".to_owned(), port.to_string())],
            port,
            directory: directory.path().to_path_buf(),
        };
        let mut run = Service::new(spec, reqwest::Client::new());
        run.launch();
        let says = "COMMAND_DATABASE_URL=";
        let url = eventually(SOON, "the other server is ready", || {
            assert_eq!(run.ended(), None, "it has ended");
            let log = run.log();
            let url = log.split_once(says).and_then(|(_, rest)| rest.split_whitespace().next()).map(str::to_owned);
            std::future::ready(url.ok_or(log))
        })
        .await;
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap();
        Self { run, url, pool, _directory: directory }
    }

    /// Lets nobody go on with the old database.
    async fn is_closed(&self) {
        let beside = self.url.replace("/orders", "/postgres");
        let mut beside = PgConnection::connect(&beside).await.unwrap();
        beside.execute("alter database orders allow_connections false").await.unwrap();
        beside.close().await.unwrap();
    }

    async fn end(mut self) {
        self.pool.close().await;
        self.run.drain().await;
    }
}

/// The next transaction id of a server.
async fn next_id(pool: &PgPool) -> i64 {
    let next = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    sqlx::query_scalar(next).fetch_one(pool).await.unwrap()
}

/// Uses up transaction ids of one server until it is well beyond the other.
async fn outruns(one: &PgPool, other: &PgPool) {
    const AHEAD: i64 = 20_000;
    let missing = next_id(other).await + AHEAD - next_id(one).await;
    if missing > 0 {
        let burn =
            format!("do $$ begin for n in 1..{missing} loop perform pg_current_xact_id(); commit; end loop; end $$");
        one.execute(AssertSqlSafe(burn)).await.unwrap();
    }
}

/// Step by step what docs/OPERATIONS.md says about the data: roles first, then everything in one transaction.
async fn copies(from: &str, to: &PgPool, to_url: &str) {
    to.execute("do $$ begin create role order_command nologin; exception when duplicate_object then null; end $$")
        .await
        .unwrap();
    to.execute("drop schema public cascade; create schema public").await.unwrap();
    let (from, to) = (from.to_owned(), to_url.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut dump =
            Command::new("pg_dump").args(["--no-owner", "--dbname", &from]).stdout(Stdio::piped()).spawn().unwrap();
        let restored = Command::new("psql")
            .args(["--quiet", "--no-psqlrc", "--single-transaction", "--set", "ON_ERROR_STOP=1", "--dbname", &to])
            .stdin(dump.stdout.take().unwrap())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(dump.wait().unwrap().success() && restored.success(), "the dump could not be restored");
    })
    .await
    .unwrap();
}

/// Leaves a database behind whose last events nobody has published.
async fn fills_with_a_backlog(world: &mut World) -> Vec<Uuid> {
    world.command.start().await;
    world.query.start().await;
    let load = Load::begin(world, 2);
    load.goes_on(60).await;
    let mut orders: Vec<Uuid> = load.end().await.orders.into_keys().collect();
    world.reads_equal_the_log().await;
    world.command.drain().await;
    world.command.set("RELAY", "off");
    world.command.start().await;
    let alice = world.customer("alice");
    for _ in 0..20 {
        let order = alice.pays(alice.places(TWO_AND_ONE).await).await;
        orders.push(order.id);
    }
    world.command.drain().await;
    world.command.set("RELAY", "on");
    orders
}

/// Moves a database to another server as docs/OPERATIONS.md says, kills the relay in the middle, and goes on.
async fn is_moved_and_goes_on(old_ids_are_ahead: bool) {
    let server = Server::start().await;
    let mut world = World::prepare().await;
    let new_url = world.command.variable("COMMAND_DATABASE_URL").to_owned();
    let new = world.log();
    match old_ids_are_ahead {
        true => outruns(&server.pool, &new).await,
        false => outruns(&new, &server.pool).await,
    }
    world.command.set("COMMAND_DATABASE_URL", &server.url);
    let orders = fills_with_a_backlog(&mut world).await;
    copies(&server.url, &new, &new_url).await;
    server.is_closed().await;
    world.command.set("COMMAND_DATABASE_URL", &new_url);

    let (code, report, _) = world.chore(&["check"]).await;
    assert_eq!(code, Some(1), "{report}");
    assert!(report.contains(" 40 not published yet") && report.contains("another database server"), "{report}");

    // The relay dies while it builds its progress anew.
    let mut obstacle = new.begin().await.unwrap();
    obstacle.execute("select from outbox where seq = (select max(seq) from outbox) for update").await.unwrap();
    world.command.launch();
    eventually(SOON, "the relay builds its progress anew", || async {
        let adopting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%outbox_adopt%'",
        )
        .fetch_one(&new)
        .await
        .unwrap();
        if adopting > 0 { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
    world.command.kill();
    obstacle.rollback().await.unwrap();

    world.command.start().await;
    let alice = world.customer("alice");
    let late = alice.pays(alice.places(TWO_AND_ONE).await).await;
    world.sees(late).at(2).await;
    world.is_clean().await;
    let (code, report, failure) = world.chore(&["check"]).await;
    assert_eq!(code, Some(0), "{report}{failure}");
    assert!(report.contains(" 0 of them repeats"), "exactly what was missing is published: {report}");
    let seen = world.reads().orders().await;
    assert!(orders.iter().all(|order| seen.contains_key(order)), "every order is seen");
    assert_eq!(world.topic.out_of_order().await, []);
    assert!(world.command.log().contains("the database was moved"));
    world.figures_are_right().await;
    world.end().await;
    server.end().await;
}

#[tokio::test]
async fn a_database_on_a_new_server_with_low_transaction_ids_is_published_to_its_end() {
    is_moved_and_goes_on(true).await;
}

#[tokio::test]
async fn a_database_on_an_old_server_with_high_transaction_ids_is_published_to_its_end() {
    is_moved_and_goes_on(false).await;
}

#[tokio::test]
async fn an_older_backup_is_not_published_over_the_topic() {
    let server = Server::start().await;
    let mut world = World::start().await;
    let right = world.command.variable("COMMAND_DATABASE_URL").to_owned();
    let alice = world.customer("alice");
    let old = alice.places(TWO_AND_ONE).await;
    world.sees(old).at(1).await;
    copies(&right, &server.pool, &server.url).await;
    // What happens after the backup is not in it.
    let paid = alice.pays(old).await;
    let new = alice.places(TWO_AND_ONE).await;
    world.sees(paid).at(2).await;
    world.sees(new).at(1).await;
    let published = world.topic.positions().await.len();
    world.command.drain().await;

    world.command.set("COMMAND_DATABASE_URL", &server.url);
    world.command.launch();
    let ready = format!("{}/health/ready", world.command.url());
    let refusal = eventually(SOON, "it says that it is not ready, and why", || async {
        let answer = Answer::to(world.http.get(&ready)).await.map_err(|error| error.to_string())?;
        if answer.status == 503 && answer.body.contains("ahead") { Ok(answer.body) } else { Err(answer.body) }
    })
    .await;
    for order in [old, new] {
        assert!(refusal.contains(&order.id.to_string()), "{refusal}");
    }
    assert_eq!(world.command.metric("orders_relay_topic_ahead_orders").await, Some(2.0));
    // It lives, and would tell another second version of the first order.
    alice.cancels(old).await;
    assert_eq!(world.command.log().matches("nothing is published").count(), 1, "it is said once in a term");
    let (code, _, failure) = world.chore_in(&server.url, &["reconcile"]).await;
    assert!(code == Some(1) && failure.contains(&old.id.to_string()), "{failure}");
    assert_eq!(world.topic.positions().await.len(), published, "nothing is published");
    world.command.drain().await;

    // Back to the right one.
    world.command.set("COMMAND_DATABASE_URL", &right);
    world.command.start().await;
    let shipped = alice.is_shipped(paid).await;
    world.sees(shipped).at(3).await;
    world.end().await;
    server.end().await;
}
