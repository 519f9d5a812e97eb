//! The wiring: what is opened, what runs, and what ends it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use chassis::http::health::Health;
use chassis::http::index::{self, Index};
use chassis::http::{Limits, bind, docs, errors, finish, serve};
use chassis::metrics::Metrics;
use chassis::tasks::{self, Tasks};
use chassis::telemetry::ErrorChain;
use serde_json::{Value, json};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::api::Api;
use crate::config::{Config, ConfigError, MigrateAtStart};
use crate::follow::{Follower, Projecting, Served, open_live};
use crate::freshness::Freshness;
use crate::lag;
use crate::log::{LogClient, LogError};
use crate::metrics;
use crate::progress::{KNOWN_FOR, Progress};
use crate::rebuild::works::Works;
use crate::store::desk::Desk;
use crate::store::{self, Generations, Store};

/// Why the service does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The read model cannot be used.
    #[error("the read model cannot be used")]
    Store(#[from] store::Error),
    /// Settings contradict each other.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The event log cannot be asked.
    #[error("no client of the event log can be made")]
    Log(#[from] LogError),
    /// An address is taken, or not ours.
    #[error("{listen} cannot be listened on")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The service, listening and ready to run.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    admin_address: SocketAddr,
    tasks: Tasks,
    health: Health,
    store: Store,
    desk: Desk,
    generations: Generations,
    grace: Duration,
}

impl Service {
    /// Opens the read model, listens, and starts the tasks. The brokers need not be there yet: until the topic was
    /// verified once the service answers and says that it is not ready.
    ///
    /// # Errors
    ///
    /// When the configuration contradicts itself, the read model cannot be used or an address cannot be listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let admin_listen = config.admin_listen()?;
        let recorder = Metrics::install();
        metrics::describe();
        let migrate = config.migrate == MigrateAtStart::Auto;
        let generations = Generations::at(&config.database.url)?;
        let (number, opened) = open_live(&generations, config.default_currency, migrate).await?;
        let store = opened.store.clone().with_list_budget(config.list_budget());
        store.ping().await?;
        let desk = opened.writer.desk();
        let (listener, address) = listen_on(config.listen, &config.http)?;
        let (admin_listener, admin_address) = listen_on(admin_listen, &config.http)?;

        let (freshness, progress) = (Freshness::default(), Progress::default());
        // Before the first question, and whichever node projects.
        if let Some(generation) = store.generation().await? {
            progress.filled_by(generation.revisions);
        }
        let health = health(&store, &progress);
        let watching = freshness.clone();
        let mut tasks = Tasks::new();
        let api = Api::new(store.clone(), freshness.clone(), progress.clone(), config.default_currency)
            .streaming(config.streams.limits(), tasks.shutdown())
            .sharing(&config.http);
        let router = router(api, &health, &recorder);
        let log = config.log_url.as_ref().map(LogClient::new).transpose()?;
        let projecting = Projecting {
            kafka: config.kafka.clone(),
            default_currency: config.default_currency,
            freshness,
            progress: progress.clone(),
            changes_kept: config.streams.changes_kept,
            log,
        };
        let served = Served { store: store.clone(), desk: desk.clone() };
        let (works, office) = Works::new(generations.clone(), projecting.clone());
        let follower = Follower::start(generations.clone(), projecting, migrate, served, (number, opened));

        let (grace, limits, shutdown) = (config.drain_grace(), config.http.clone(), tasks.shutdown());
        tasks.spawn("http", async move { serve(listener, router, &limits, shutdown).await });
        let admin = Admin::new(store.clone(), desk.clone()).rebuilding(office);
        let (admin, limits, shutdown) = (admin_router(admin), config.http, tasks.shutdown());
        tasks.spawn("admin", async move { serve(admin_listener, admin, &limits, shutdown).await });
        tasks.spawn("projector", follower.run(tasks.shutdown()));
        tasks.spawn("rebuilder", works.run(tasks.shutdown()));
        tasks.spawn("freshness", watching.watch(store.clone(), tasks.shutdown()));
        tasks.spawn("lag", lag::sample(config.kafka, store.clone(), progress.clone(), tasks.shutdown()));
        tasks.spawn("quick-check", quick_check(store.clone(), progress, tasks.shutdown()));
        tracing::info!(%address, admin = %admin_address, "order-query listens");
        Ok(Self { address, admin_address, tasks, health, store, desk, generations, grace })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens to operators.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Runs until `signal`, then drains: not ready, no new connections, requests and the projector's step finish,
    /// and the database is closed.
    ///
    /// # Errors
    ///
    /// The first task that ended otherwise, or those that did not finish in time.
    pub async fn run(self, signal: impl Future) -> Result<(), tasks::Error> {
        let health = self.health;
        let drain = async {
            signal.await;
            health.draining();
        };
        let ended = self.tasks.run(drain, self.grace).await;
        self.desk.close().await;
        self.store.close().await;
        self.generations.close().await;
        ended
    }
}

fn listen_on(listen: SocketAddr, limits: &Limits) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { listen, source };
    let listener = bind(listen, limits).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Everything that operators are answered.
pub fn admin_router(admin: Admin) -> Router {
    let (routes, openapi) = admin.router();
    let links = [
        ("docs", "/docs"),
        ("openapi", "/openapi.json"),
        ("generations", "/generations"),
        ("interventions", "/interventions"),
    ];
    finish(routes.merge(docs::router(openapi)).merge(errors::router()).merge(index("order-query admin", &links)))
}

fn index(name: &'static str, links: &[(&'static str, &'static str)]) -> Router {
    index::router(Index { name, version: env!("CARGO_PKG_VERSION"), links: links.iter().copied().collect() })
}

/// Everything that the service answers.
pub fn router(api: Api, health: &Health, recorder: &Metrics) -> Router {
    let (routes, openapi) = api.router();
    let routes = routes.merge(health.router()).merge(recorder.router());
    let links = [
        ("docs", "/docs"),
        ("openapi", "/openapi.json"),
        ("orders", "/orders"),
        ("health", "/health/ready"),
        ("metrics", "/metrics"),
    ];
    finish(routes.merge(docs::router(openapi)).merge(errors::router()).merge(index("order-query", &links)))
}

fn health(store: &Store, progress: &Progress) -> Health {
    let health = Health::new();
    let (pinged, damage) = (store.clone(), progress.clone());
    health.register("database", move || {
        let (store, damage) = (pinged.clone(), damage.damage());
        async move {
            match damage {
                Some(damage) => Err(format!("damaged: {damage}")),
                None => store.ping().await.map_err(|error| ErrorChain(&error).to_string()),
            }
        }
    });
    let verified = progress.clone();
    health.register("topic", move || {
        // Once verified, a topic that is away makes answers old, not wrong: they are served on. Where another node
        // reads it, this one serves what that one wrote.
        let waiting = !verified.was_verified() && !verified.is_standby();
        let problem = match verified.trouble() {
            // What is refused at the start is refused later, too: events may be where nobody reads, or be lost.
            Some(trouble) if waiting || trouble.kind == "unfit" => Some(trouble.why),
            None if waiting => Some("not verified yet".to_owned()),
            _ => None,
        };
        async move { problem.map_or(Ok(()), Err) }
    });
    let fresh = progress.clone();
    health.warn("freshness", move || {
        let stale = stale(&fresh);
        async move { stale.map_or(Ok(()), Err) }
    });
    let known = progress.clone();
    health.tell("projection", move || {
        let (knowledge, standby) = (known.knowledge(), known.is_standby());
        async move {
            json!({
                "lag": knowledge.lag,
                "behind_s": knowledge.behind.map(|behind| behind.as_secs()),
                "read_age_s": (!standby).then_some(knowledge.read_age.as_secs()),
                "ends_age_s": knowledge.ends_age.as_secs(),
            })
        }
    });
    let counting = store.clone();
    health.tell("not_applied", move || {
        let store = counting.clone();
        async move {
            match store.backlog().await {
                Ok(backlog) => json!({
                    "dead_letters": backlog.dead_letters,
                    "oldest_dead_letter_s": backlog.oldest_letter_micros.map(lag::age_s),
                    "parked": backlog.parked,
                    "oldest_parked_s": backlog.oldest_parked_micros.map(lag::age_s),
                }),
                // The check of the database tells.
                Err(_error) => Value::Null,
            }
        }
    });
    let projecting = progress.clone();
    health.register("projector", move || {
        let failure = projecting.persistent_failure();
        async move { failure.map_or(Ok(()), Err) }
    });
    health
}

/// Why what is served may be old, and since when; none while it is known to be fresh.
fn stale(progress: &Progress) -> Option<String> {
    let known = progress.knowledge();
    let (read, ends) = (known.read_age.as_secs(), known.ends_age.as_secs());
    if let Some(trouble) = progress.trouble() {
        return Some(format!("{}; the brokers last answered {read} s ago", trouble.why));
    }
    if !progress.is_standby() && known.read_age > KNOWN_FOR {
        return Some(format!("the topic was last read {read} s ago"));
    }
    if known.ends_age > KNOWN_FOR {
        return Some(format!("where the topic ends was last known {ends} s ago"));
    }
    known.lag.is_none().then(|| "how far the read model is behind is not known".to_owned())
}

/// Reads the whole file once, beside serving (rules R17).
async fn quick_check(store: Store, progress: Progress, shutdown: CancellationToken) -> Result<(), Infallible> {
    let checked = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        checked = store.quick_check() => checked,
    };
    match checked {
        Ok(None) => tracing::debug!("the read model's file is sound"),
        Ok(Some(damage)) => {
            tracing::error!(
                damage,
                "the read model's file is damaged: `order-query rebuild` builds another one beside it"
            );
            progress.damaged(damage);
        }
        Err(error) => tracing::warn!(error = %ErrorChain(&error), "the read model's file could not be checked"),
    }
    shutdown.cancelled().await;
    Ok(())
}
