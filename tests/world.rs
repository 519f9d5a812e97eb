//! A world for each test: a database, a topic and a read model of its own, and the real programs on them.
//!
//! A test starts a world, does something to it, and ends it. The end asserts that the world is clean: everything is
//! published, `order-command check` agrees, the read model says what the log says, nothing is set aside, and both
//! services drain well. A test that leaves something else behind declares it.

pub(crate) mod broker;
pub(crate) mod client;
pub(crate) mod fold;
pub(crate) mod generations;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod reads;
pub(crate) mod settings;
pub(crate) mod stream;
pub(crate) mod topic;

use std::time::Duration;

use chassis::kafka::{Brokers, TopicSpec};
use chassis::testkit::{self, TestDatabase, eventually};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::time::Instant;

use client::Order;
use fold::Figures;
use process::{Service, Spec};
use topic::Topic;

/// How long anything may take that the services do by themselves.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Enough to tell partitions apart.
const PARTITIONS: i32 = 3;

/// One test's world.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) command: Service,
    pub(crate) query: Service,
    pub(crate) topic: Topic,
    pub(crate) http: reqwest::Client,
    ground: Ground,
    dead_letters: usize,
    ended: bool,
}

/// What the services of a world stand on.
#[derive(Debug)]
struct Ground {
    database: TestDatabase,
    topic: Topic,
    directory: TempDir,
}

impl World {
    /// Both services, ready.
    pub(crate) async fn start() -> Self {
        let mut world = Self::prepare().await;
        world.command.launch();
        world.query.launch();
        world.command.is_ready().await;
        world.query.is_ready().await;
        world
    }

    /// The servers of a world whose services the test starts itself.
    pub(crate) async fn prepare() -> Self {
        Self::prepare_on(testkit::brokers()).await
    }

    /// The same with another broker than that of the test run.
    pub(crate) async fn prepare_on(brokers: Brokers) -> Self {
        let database = TestDatabase::create(&command::MIGRATOR).await;
        let directory = tempfile::tempdir().unwrap();
        let spec = TopicSpec { name: testkit::topic("orders"), partitions: PARTITIONS, replication: 1 };
        let topic = Topic { brokers, spec };
        let http = reqwest::Client::builder().no_proxy().pool_idle_timeout(Duration::from_secs(2)).build().unwrap();
        let ground = Ground { database, topic: topic.clone(), directory };
        let command = Service::new(ground.command("order-command", &["serve"]), http.clone());
        let query = Service::new(ground.query("order-query", &["serve"]), http.clone());
        Self { command, query, topic, http, ground, dead_letters: 0, ended: false }
    }

    /// One more relay, not started.
    pub(crate) fn relay(&self, name: &str) -> Service {
        Service::new(self.ground.command(name, &["relay"]), self.http.clone())
    }

    /// Runs one of `order-command`'s chores to its end: exit code, standard output, standard error.
    pub(crate) async fn chore(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let spec = self.ground.command(args[0], args);
        tokio::task::spawn_blocking(move || process::run(&spec)).await.unwrap()
    }

    /// The same with another database than the world's.
    pub(crate) async fn chore_in(&self, url: &str, args: &[&str]) -> (Option<i32>, String, String) {
        let mut chore = self.command.beside("elsewhere", args);
        chore.set("COMMAND_DATABASE_URL", url);
        chore.runs_to_its_end().await
    }

    /// The command service's database, as its owner.
    pub(crate) fn log(&self) -> PgPool {
        self.ground.database.pool()
    }

    /// Declares that so many dead letters are meant to be there at the end.
    pub(crate) fn expects_dead_letters(&mut self, count: usize) {
        self.dead_letters = count;
    }

    /// Asserts that the world is clean, and stops it.
    pub(crate) async fn end(mut self) {
        self.is_clean().await;
        for service in [&mut self.command, &mut self.query] {
            if service.runs() {
                service.drain().await;
            }
        }
        self.ended = true;
    }

    /// Ends a world in which no service was started.
    pub(crate) fn end_unused(mut self) {
        self.ended = true;
    }

    /// Asserts that everything derived from the log agrees with it, and that nothing is left to do or set aside.
    pub(crate) async fn is_clean(&self) {
        self.reads_equal_the_log().await;
        self.is_published().await;
        let (dead_letters, parked) = (self.reads().dead_letters().await, self.reads().parked().await);
        assert_eq!(dead_letters.len(), self.dead_letters, "dead letters: {dead_letters:?}");
        assert!(parked.is_empty(), "parked: {parked:?}");
    }

    /// Waits until the topic has all of the log, whether readers have read it or not.
    pub(crate) async fn is_published(&self) {
        eventually(SOON, "everything is published and `order-command check` agrees", || async {
            let (code, report, failure) = self.chore(&["check"]).await;
            if code == Some(0) && report.contains(" 0 not published yet") { Ok(()) } else { Err(report + &failure) }
        })
        .await;
    }

    /// Asserts that readers are told the sums that the topic comes to, folded by other code.
    pub(crate) async fn figures_are_right(&self) {
        self.reads_equal_the_log().await;
        let told = self.reads().figures().await;
        assert_eq!(told, Figures::of(&self.topic.everything().await));
    }

    /// Waits until the read model has every order of the log in its last version.
    pub(crate) async fn reads_equal_the_log(&self) {
        let deadline = Instant::now() + SOON;
        loop {
            let (logged, read) = (self.logged().await, self.reads().orders().await);
            let behind: Vec<_> = logged.iter().filter(|(order, version)| read.get(*order) != Some(*version)).collect();
            let Some((order, version)) = behind.first() else { return };
            assert!(Instant::now() < deadline, "{} of {} orders are behind", behind.len(), logged.len());
            // One that is behind tells best when it is worth to look again.
            self.sees(Order { id: **order, version: **version }).at(**version).await;
        }
    }

    /// A run of `order-command` in this world that the test starts itself.
    pub(crate) fn command_run(&self, name: &str, args: &[&str]) -> Spec {
        self.ground.command(name, args)
    }

    /// A run of `order-query` in this world that the test starts itself.
    pub(crate) fn query_run(&self, name: &str, args: &[&str]) -> Spec {
        self.ground.query(name, args)
    }
}

impl Ground {
    fn command(&self, name: &str, args: &[&str]) -> Spec {
        self.spec(name, "order-command", args, |address| {
            vec![
                ("COMMAND_LISTEN", address),
                ("COMMAND_DATABASE_URL", self.database.url().expose().to_owned()),
                ("SEED_PRODUCTS", "prod-1=15.00,prod-2=12.50".to_owned()),
                ("UNKNOWN_SKU_PRICE", "10.00".to_owned()),
            ]
        })
    }

    fn query(&self, name: &str, args: &[&str]) -> Spec {
        let file = self.directory.path().join("orders.db");
        self.spec(name, "order-query", args, |address| {
            vec![
                ("QUERY_LISTEN", address),
                ("QUERY_ADMIN_LISTEN", format!("127.0.0.1:{}", settings::free_port())),
                ("QUERY_DATABASE_URL", format!("sqlite://{}", file.display())),
            ]
        })
    }

    fn spec(
        &self,
        name: &str,
        program: &str,
        args: &[&str],
        envs: impl FnOnce(String) -> Vec<(&'static str, String)>,
    ) -> Spec {
        let port = settings::free_port();
        let mut envs = envs(format!("127.0.0.1:{port}"));
        envs.push(("KAFKA_BROKERS", self.topic.brokers.0.clone()));
        envs.push(("ORDERS_TOPIC", self.topic.spec.name.clone()));
        envs.push(("ORDERS_TOPIC_PARTITIONS", self.topic.spec.partitions.to_string()));
        Spec {
            name: name.to_owned(),
            program: settings::program(program),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            envs: envs.into_iter().map(|(variable, value)| (variable.to_owned(), value)).collect(),
            port,
            directory: self.directory.path().to_path_buf(),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The services print their logs themselves when a test fails.
        assert!(self.ended || std::thread::panicking(), "the test must end its world");
    }
}
