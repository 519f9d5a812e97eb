//! The wiring: what a running service consists of, readable from top to bottom.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use chassis::http::admission::Admission;
use chassis::http::health::Health;
use chassis::http::{self, errors};
use chassis::kafka::topic;
use chassis::metrics::Metrics;
use chassis::postgres;
use chassis::tasks::{self, Tasks};
use chassis::telemetry::ErrorChain;
use domain::Money;
use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;
use thiserror::Error;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Api};
use crate::catalog::{self, Catalog, Product};
use crate::config::{AutoMigrate, Database, Invalid, Serve, Switch};
use crate::executor::{self, Executor};
use crate::gauges::{self, Backlog};
use crate::probe::DatabaseProbe;
use crate::relay::{self, Relay};
use crate::{idempotency, schema};

/// Connections for looking products up and changing them.
const PRODUCT_CONNECTIONS: u32 = 2;
/// Connections for the prices of orders: the loader asks one question at a time.
const PRICE_CONNECTIONS: u32 = 1;
/// How long the first products may take to be stored.
const SEED_DEADLINE: Duration = Duration::from_secs(60);
/// How long a start waits for the broker. Without one, commands are taken all the same.
const TOPIC_PATIENCE: Duration = Duration::from_secs(3);
/// How long a start waits for the relay to take office.
const RELAY_PATIENCE: Duration = Duration::from_secs(3);

/// Why the service did not start, or ended badly.
#[derive(Debug, Error)]
pub enum Error {
    /// Settings that do not fit together.
    #[error("the configuration is wrong")]
    Config(#[from] Invalid),
    /// PostgreSQL.
    #[error("the database cannot be used")]
    Database(#[from] postgres::Error),
    /// A statement at start.
    #[error("the database failed at start")]
    Sql(#[from] sqlx::Error),
    /// PostgreSQL would lose what it has acknowledged (rules R20).
    #[error("the database is not safe")]
    Unsafe(#[from] postgres::Unsafe),
    /// The service could change the past.
    #[error("the database user may update or delete events: name a role that may not (COMMAND_DATABASE_ROLE)")]
    EventsNotAppendOnly,
    /// Another release, or nobody, has migrated the database.
    #[error("the database's schema is not the one of this release: run `order-command migrate`")]
    NotMigrated,
    /// The topic exists and is not what it must be (rules R24).
    #[error("the topic cannot be used")]
    Topic(#[from] topic::Unfit),
    /// Somebody else listens there.
    #[error("cannot listen on {addr}")]
    Listen {
        /// Where.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A part of the service ended, or did not.
    #[error("the service ended")]
    Tasks(#[from] tasks::Error),
}

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Commands, and the relay unless it is switched off.
    Commands,
    /// The relay alone.
    Relay,
}

/// A service that is running.
#[derive(Debug)]
pub struct Service {
    tasks: Tasks,
    health: Health,
    addr: SocketAddr,
    grace: Duration,
}

/// How to reach the database as the service's own role.
///
/// # Errors
///
/// The URL cannot be read.
pub fn database(database: &Database) -> Result<PgConnectOptions, postgres::Error> {
    postgres::connect_options(&database.database_url, "order-command", database.role())
}

/// What a relay needs, from the same settings wherever it runs.
pub fn relay_setup(connect: PgConnectOptions, kafka: &chassis::config::Kafka, limits: relay::Limits) -> relay::Setup {
    relay::Setup {
        connect,
        brokers: kafka.brokers.clone(),
        topic: kafka.topic_spec(),
        limits,
        owner: uuid::Uuid::now_v7().to_string(),
        committed: Arc::new(Notify::new()),
        status: relay::status::Status::default(),
    }
}

impl Service {
    /// Checks everything, then opens the port. What is wrong is told before anybody is served.
    ///
    /// # Errors
    ///
    /// Each variant of [`enum@Error`] that a start can meet.
    pub async fn start(config: &Serve, role: Role) -> Result<Self, Error> {
        let unknown_sku_price = config.unknown_sku_price()?;
        let seed_products = config.seed_products()?;
        let connect = database(&config.database)?;
        prepare_database(config, &connect).await?;
        let relay = relay_setup(connect.clone(), &config.kafka, config.tuning.relay());
        let publishes = role == Role::Relay || config.relay == Switch::On;
        let reachable = publishes && prepare_topic(&relay).await?;
        seed_catalog(&connect, &seed_products).await?;

        let addr = config.listen.listen;
        let listener = http::bind(addr, &config.http).map_err(|source| Error::Listen { addr, source })?;
        let addr = listener.local_addr().map_err(|source| Error::Listen { addr, source })?;

        let mut tasks = Tasks::new();
        // Drains in order: first HTTP, then the lanes, whose last commits the relay still publishes.
        let lanes_done = CancellationToken::new();
        let health = Health::new();
        let probe = DatabaseProbe::new(postgres::pool(connect.clone(), 1));
        health.register("database", move || probe.clone().answer());
        let mut router = Metrics::install().router().merge(health.router()).merge(errors::router());
        if role == Role::Commands {
            let (executor, mut lanes) = Executor::new(&executor::Setup {
                connect: connect.clone(),
                limits: config.tuning.executor(),
                render: api::render,
                committed: Arc::clone(&relay.committed),
                default_currency: config.default_currency,
            });
            let room = executor.room();
            health.warn("commands", move || ready(room.check()));
            join_all(lanes.iter_mut().map(executor::Lane::warm)).await;
            let lanes_done = lanes_done.clone();
            tasks.spawn("lanes", async move {
                join_all(lanes.into_iter().map(executor::Lane::run)).await;
                lanes_done.cancel();
                Ok::<_, Infallible>(())
            });
            router = router.merge(serve_api(config, &connect, executor, unknown_sku_price, &mut tasks));
        } else {
            router = router.merge(api::index([]));
            // There are no lanes to wait for.
            let (shutdown, lanes_done) = (tasks.shutdown(), lanes_done.clone());
            tasks.spawn("lanes", async move {
                shutdown.cancelled().await;
                lanes_done.cancel();
                Ok::<_, Infallible>(())
            });
        }
        if publishes {
            tasks.spawn("topic watch", relay::watch::watch(relay.clone(), tasks.shutdown()));
            health.register("topic", relay.status.may_publish());
            let (status, backlog) = (relay.status.clone(), Backlog::unknown());
            tasks.spawn("gauges", gauges::tick(status.clone(), backlog.clone(), tasks.shutdown()));
            tasks.spawn("outbox gauge", gauges::sample_outbox(relay.clone(), backlog.clone(), tasks.shutdown()));
            health.tell("relay", move || ready(gauges::shown(status.report())));
            health.tell("outbox", move || ready(backlog.shown()));
            let mut relay = Relay::new(relay);
            if reachable {
                relay.warm(RELAY_PATIENCE).await;
            }
            tasks.spawn("relay", relay.run(lanes_done));
        }
        crate::metrics::describe();
        let (limits, shutdown) = (config.http.clone(), tasks.shutdown());
        let router = http::finish(router);
        tasks.spawn("http", async move { http::serve(listener, router, &limits, shutdown).await });
        tracing::info!(%addr, ?role, relay = publishes, "listening");
        Ok(Self { tasks, health, addr, grace: Duration::from_millis(config.drain_grace_ms) })
    }

    /// Where the service listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Runs until `signal`, then drains: no longer ready, no new requests, everything accepted finished and published.
    ///
    /// # Errors
    ///
    /// The first part that ended by itself, or that did not end in time.
    pub async fn run(self, signal: impl Future) -> Result<(), Error> {
        let Self { tasks, health, grace, .. } = self;
        let signal = async {
            signal.await;
            tracing::info!("draining");
            health.draining();
        };
        tasks.run(signal, grace).await?;
        tracing::info!("drained");
        Ok(())
    }
}

/// The API, with the tasks that it needs beside the lanes. Whatever asks the database has connections of its own.
fn serve_api(
    config: &Serve,
    connect: &PgConnectOptions,
    executor: Executor,
    unknown_sku_price: Option<Money>,
    tasks: &mut Tasks,
) -> Router {
    tasks.spawn("queue gauge", gauges::sample_queue(executor.clone(), tasks.shutdown()));
    let keep_s = config.tuning.idempotency_keep_s;
    tasks.spawn("key expiry", idempotency::expire(connect.clone(), keep_s, tasks.shutdown()));
    let pool = |connections| postgres::pool(connect.clone(), connections);
    let (products, prices) = (pool(PRODUCT_CONNECTIONS), pool(PRICE_CONNECTIONS));
    let (catalog, prices) = Catalog::new(products, prices, config.default_currency, unknown_sku_price);
    tasks.spawn("prices", prices.run());
    let log = api::Log::new(pool(api::PAGES_READ_MAX), config.http.peer_share(api::PAGES_HELD_MAX));
    let commands_max = config.tuning.commands_max as usize;
    let share = config.http.peer_share(commands_max);
    let commands = Admission::new("commands", commands_max).with_share(share);
    let reads = Admission::new("reads", commands_max).with_share(share);
    let reader = config.reader_url.clone();
    api::router(Api { executor, catalog, reader, log, commands, reads })
}

/// Migrates if asked to, and refuses a database that would lose events or let the service change them.
async fn prepare_database(config: &Serve, connect: &PgConnectOptions) -> Result<(), Error> {
    if config.migrate == AutoMigrate::Auto {
        schema::migrate(&config.database.database_url).await?;
    }
    // Without the schema there is no role to become either; ask as whoever the URL says.
    let owner = postgres::connect_options(&config.database.database_url, "order-command-start", None)?;
    let mut connection = postgres::connect(&owner).await?;
    postgres::assert_settings(&mut connection).await?;
    postgres::assert_durable(&mut connection).await?;
    postgres::assert_ours(&mut connection, &schema::MIGRATOR).await?;
    if !schema::is_up_to_date(&mut connection).await? {
        return Err(Error::NotMigrated);
    }
    postgres::disconnect(connection).await;
    let mut connection = postgres::connect(connect).await?;
    let may_change: bool = sqlx::query_scalar(
        "select has_table_privilege('events', 'update') or has_table_privilege('events', 'delete')
             or has_table_privilege('events', 'truncate')",
    )
    .fetch_one(&mut connection)
    .await?;
    postgres::disconnect(connection).await;
    if may_change { Err(Error::EventsNotAppendOnly) } else { Ok(()) }
}

async fn seed_catalog(connect: &PgConnectOptions, products: &[Product]) -> Result<(), Error> {
    let mut connection = postgres::connect(connect).await?;
    postgres::in_time(SEED_DEADLINE, catalog::seed(&mut connection, products)).await?;
    postgres::disconnect(connection).await;
    Ok(())
}

/// Creates and checks the topic. True when that went well. A broker that cannot be reached is no reason not to take commands: the
/// relay tries on.
async fn prepare_topic(relay: &relay::Setup) -> Result<bool, Error> {
    let prepared = async {
        topic::ensure(&relay.brokers, &relay.topic).await?;
        topic::verify(&relay.brokers, &relay.topic).await
    };
    match tokio::time::timeout(TOPIC_PATIENCE, prepared).await {
        Ok(Ok(_)) => return Ok(true),
        Ok(Err(drift @ topic::Unfit::Drift(_))) => return Err(Error::Topic(drift)),
        Ok(Err(error)) => {
            tracing::warn!(error = %ErrorChain(&error), "the topic cannot be checked now; the relay goes on trying");
        }
        Err(_elapsed) => tracing::warn!("the broker does not answer; the relay goes on trying"),
    }
    Ok(false)
}
