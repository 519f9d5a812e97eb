//! Configuration: flags and environment variables, and nothing else reads the environment. `--help` is the reference.

use std::net::SocketAddr;
use std::time::Duration;

use chassis::config::{Kafka, LogFormat, Secret};
use chassis::http::Limits as HttpLimits;
use chrono::{DateTime, Utc};
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::{Currency, Money, Sku};
use uuid::Uuid;

use crate::api::ReaderUrl;
use crate::catalog::Product;
use crate::{executor, relay};

/// The command side of the order service.
#[derive(Debug, Parser)]
#[command(name = "order-command", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Take commands over HTTP and, unless told otherwise, publish their events.
    Serve(Box<Serve>),
    /// Only publish events; health and metrics are served.
    Relay(Box<Serve>),
    /// Bring the database's schema up to date and stop.
    Migrate(Migrate),
    /// Put events back on the topic from the event log. Live publishing waits meanwhile.
    Republish(Republish),
    /// Find what the topic has lost, and put exactly that back on it.
    Reconcile(Chore),
    /// Compare aggregate rows, outbox and topic with the event log. Exits 1 when they disagree.
    Check(Chore),
    /// Ask a running service whether it is ready: for container health checks.
    Healthcheck(Healthcheck),
}

/// Where the service listens.
#[derive(Debug, Clone, Args)]
pub struct Listen {
    /// Address of the API, health and metrics.
    #[arg(long, env = "COMMAND_LISTEN", default_value = "127.0.0.1:8000")]
    pub listen: SocketAddr,
}

/// `healthcheck`.
#[derive(Debug, Clone, Args)]
pub struct Healthcheck {
    /// Where the service listens.
    #[command(flatten)]
    pub listen: Listen,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
}

/// How to log.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// Lines for people, or JSON for machines.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t = LogFormat::Pretty)]
    pub log_format: LogFormat,
    /// What to log, in the syntax of tracing's `EnvFilter`.
    #[arg(long, env = "LOG_FILTER", default_value = "info")]
    pub log_filter: String,
}

/// Where the event log is.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// PostgreSQL, as somebody who owns the schema or is a member of the service's role.
    #[arg(long, env = "COMMAND_DATABASE_URL", hide_env_values = true)]
    pub database_url: Secret,
    /// The role that the service becomes: it may append events and not change them. Empty: stay who the URL says.
    #[arg(long, env = "COMMAND_DATABASE_ROLE", default_value = "order_command")]
    pub database_role: String,
}

impl Database {
    /// The role to become, if any.
    pub fn role(&self) -> Option<&str> {
        Some(self.database_role.as_str()).filter(|role| !role.is_empty())
    }
}

/// `migrate`.
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    /// Where.
    #[command(flatten)]
    pub database: Database,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
}

/// `check` and `reconcile`.
#[derive(Debug, Clone, Args)]
pub struct Chore {
    /// The log.
    #[command(flatten)]
    pub database: Database,
    /// The topic.
    #[command(flatten)]
    pub kafka: Kafka,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
    /// The currency of messages that name none.
    #[arg(long, env = "DEFAULT_CURRENCY", default_value = "USD")]
    pub default_currency: Currency,
    /// How long to wait until the active relay hands over, in milliseconds.
    #[arg(long, default_value_t = 15_000)]
    pub handover_ms: u64,
}

/// `republish`.
#[derive(Debug, Clone, Args)]
pub struct Republish {
    /// Log and topic.
    #[command(flatten)]
    pub chore: Chore,
    /// Which events.
    #[command(flatten)]
    pub selection: Selection,
}

/// Which events to publish again.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct Selection {
    /// All of them.
    #[arg(long, conflicts_with_all = ["order", "from", "to"])]
    pub all: bool,
    /// Those of one order.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub order: Option<Uuid>,
    /// Those that happened at this time or later (RFC 3339).
    #[arg(long)]
    pub from: Option<DateTime<Utc>>,
    /// Those that happened before this time (RFC 3339).
    #[arg(long)]
    pub to: Option<DateTime<Utc>>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Whether to migrate at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AutoMigrate {
    /// At start, under a lock.
    Auto,
    /// Never: `order-command migrate` did it, and the start fails when it did not.
    Off,
}

/// `serve` and `relay`.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Where the service listens.
    #[command(flatten)]
    pub listen: Listen,
    /// Where the event log is.
    #[command(flatten)]
    pub database: Database,
    /// Where events go.
    #[command(flatten)]
    pub kafka: Kafka,
    /// How to log.
    #[command(flatten)]
    pub log: Log,
    /// Limits of the HTTP server.
    #[command(flatten)]
    pub http: HttpLimits,
    /// Sizes of the write path.
    #[command(flatten)]
    pub tuning: Tuning,
    /// Base URL of order-query as clients reach it: `GET /orders/{id}` is sent there. Without it, that is 404.
    #[arg(long, env = "COMMAND_READER_URL")]
    pub reader_url: Option<ReaderUrl>,
    /// Whether this process publishes events too.
    #[arg(long, env = "RELAY", value_enum, default_value_t = Switch::On)]
    pub relay: Switch,
    /// Whether to bring the schema up to date at start.
    #[arg(long, env = "MIGRATE", value_enum, default_value_t = AutoMigrate::Auto)]
    pub migrate: AutoMigrate,
    /// The currency of prices and messages that name none.
    #[arg(long, env = "DEFAULT_CURRENCY", default_value = "USD")]
    pub default_currency: Currency,
    /// The price of a SKU that the catalogue does not have; without it such a SKU is refused.
    #[arg(long, env = "UNKNOWN_SKU_PRICE")]
    pub unknown_sku_price: Option<String>,
    /// Products to add at start when they are missing: `sku=price,sku=price`.
    #[arg(long, env = "SEED_PRODUCTS", default_value = "")]
    pub seed_products: String,
    /// How long draining may take before the process ends anyway, in milliseconds.
    #[arg(long, env = "DRAIN_GRACE_MS", default_value_t = 20_000)]
    pub drain_grace_ms: u64,
}

/// Sizes of the write path. The defaults are for two cores; `docs/PERFORMANCE.md` tells what they cost.
#[derive(Debug, Clone, Args)]
pub struct Tuning {
    /// Lanes of the executor, a database connection each.
    #[arg(long, env = "COMMAND_LANES", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub lanes: u16,
    /// Commands that may wait for one lane.
    #[arg(long, env = "COMMAND_QUEUE_COMMANDS_MAX", default_value_t = 1_024, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub queue_commands_max: u32,
    /// Commands of one transaction.
    #[arg(long, env = "COMMAND_BATCH_COMMANDS_MAX", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub batch_commands_max: u32,
    /// Commands that may be in the house at once.
    #[arg(long, env = "COMMAND_COMMANDS_MAX", default_value_t = 2_048, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub commands_max: u32,
    /// How long a command may wait and be tried, in milliseconds.
    #[arg(long, env = "COMMAND_DEADLINE_MS", default_value_t = 5_000)]
    pub command_deadline_ms: u64,
    /// Events of one relay batch.
    #[arg(long, env = "RELAY_BATCH_EVENTS_MAX", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub relay_batch_events_max: u32,
    /// How often the relay looks for events without a hint, in milliseconds.
    #[arg(long, env = "RELAY_POLL_MS", default_value_t = 20)]
    pub relay_poll_ms: u64,
    /// How often an idle relay checks that the topic still holds what was acknowledged, in milliseconds.
    #[arg(long, env = "RELAY_TOPIC_CHECK_MS", default_value_t = 2_000)]
    pub relay_topic_check_ms: u64,
    /// For how long published outbox rows are kept, in seconds.
    #[arg(long, env = "OUTBOX_KEEP_S", default_value_t = 86_400)]
    pub outbox_keep_s: u32,
    /// For how long an idempotency key is remembered, in seconds.
    #[arg(long, env = "IDEMPOTENCY_KEEP_S", default_value_t = 7 * 86_400)]
    pub idempotency_keep_s: u32,
}

impl Default for Tuning {
    /// What the flags default to.
    fn default() -> Self {
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            tuning: Tuning,
        }
        // Without arguments every flag has its default or its variable; a wrong variable is told by `serve`.
        Flags::try_parse_from(["order-command"]).map_or_else(
            |_wrong_variable| Self {
                lanes: 2,
                queue_commands_max: 1_024,
                batch_commands_max: 256,
                commands_max: 2_048,
                command_deadline_ms: 5_000,
                relay_batch_events_max: 2_000,
                relay_poll_ms: 20,
                relay_topic_check_ms: 2_000,
                outbox_keep_s: 86_400,
                idempotency_keep_s: 7 * 86_400,
            },
            |flags| flags.tuning,
        )
    }
}

impl Tuning {
    /// The executor's part.
    pub fn executor(&self) -> executor::Limits {
        executor::Limits {
            lanes: usize::from(self.lanes),
            queue_commands_max: self.queue_commands_max as usize,
            batch_commands_max: self.batch_commands_max as usize,
            command_deadline: Duration::from_millis(self.command_deadline_ms),
            // A connection that went silent is given up early enough for another try.
            flush_deadline: Duration::from_millis(self.command_deadline_ms * 3 / 5).max(Duration::from_millis(100)),
            resolve_deadline: Duration::from_secs(10),
        }
    }

    /// The relay's part.
    pub fn relay(&self) -> relay::Limits {
        relay::Limits {
            batch_events_max: self.relay_batch_events_max as usize,
            acks_timeout: Duration::from_secs(30),
            poll: Duration::from_millis(self.relay_poll_ms.max(1)),
            topic_check: Duration::from_millis(self.relay_topic_check_ms.max(100)),
            outbox_keep_s: self.outbox_keep_s,
        }
    }
}

/// Settings that are right each by itself and wrong together.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// The price of unknown SKUs.
    #[error("UNKNOWN_SKU_PRICE is not an amount of {currency}")]
    UnknownSkuPrice {
        /// The default currency.
        currency: Currency,
        /// Why.
        #[source]
        source: domain::money::InvalidMoney,
    },
    /// The products to add.
    #[error("SEED_PRODUCTS is not a list such as `prod-1=15.00,prod-2=12.50`: `{entry}`")]
    SeedProducts {
        /// The first entry that is wrong.
        entry: String,
    },
}

impl Serve {
    /// The price of a SKU that the catalogue does not have.
    ///
    /// # Errors
    ///
    /// It is no amount of the default currency.
    pub fn unknown_sku_price(&self) -> Result<Option<Money>, Invalid> {
        let currency = self.default_currency;
        let price = self.unknown_sku_price.as_deref().filter(|price| !price.trim().is_empty());
        price
            .map(|price| Money::parse(price.trim(), currency))
            .transpose()
            .map_err(|source| Invalid::UnknownSkuPrice { currency, source })
    }

    /// The products to add at start.
    ///
    /// # Errors
    ///
    /// An entry is not `sku=price`.
    pub fn seed_products(&self) -> Result<Vec<Product>, Invalid> {
        let entries = self.seed_products.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries
            .map(|entry| {
                let invalid = || Invalid::SeedProducts { entry: entry.to_owned() };
                let (sku, price) = entry.split_once('=').ok_or_else(invalid)?;
                let sku: Sku = sku.trim().parse().map_err(|_text| invalid())?;
                let unit_price = Money::parse(price.trim(), self.default_currency).map_err(|_text| invalid())?;
                Ok(Product { sku, unit_price, name: None })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(arguments: &[&str]) -> Box<Serve> {
        let words = ["order-command", "serve", "--database-url", "postgres://localhost/x"];
        let cli = Cli::try_parse_from(words.iter().chain(arguments)).unwrap();
        let Action::Serve(serve) = cli.action else { panic!("not serve") };
        serve
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_and_prices_are_read_exactly() {
        let config = serve(&["--seed-products", "prod-1=15.00, prod-2=12.50", "--unknown-sku-price", "10.00"]);
        let seeds = config.seed_products().unwrap();
        assert_eq!(seeds[1].unit_price.minor(), 1250);
        assert_eq!(config.unknown_sku_price().unwrap().unwrap().minor(), 1000);
        assert!(serve(&["--seed-products", "prod-1"]).seed_products().is_err());
        assert!(serve(&["--unknown-sku-price", "10.001"]).unknown_sku_price().is_err());
    }

    #[test]
    fn republish_wants_to_know_which_events() {
        let parse = |arguments: &[&str]| {
            let words = ["order-command", "republish", "--database-url", "postgres://localhost/x"];
            Cli::try_parse_from(words.iter().chain(arguments)).is_ok()
        };
        assert!(!parse(&[]));
        assert!(parse(&["--all"]));
        assert!(parse(&["--from", "2026-01-01T00:00:00Z"]));
        assert!(!parse(&["--all", "--from", "2026-01-01T00:00:00Z"]));
    }
}
