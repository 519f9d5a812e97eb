//! The command line and the environment; `order-query serve --help` is the reference.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use chassis::config::{Kafka, LogFormat, Secret};
use chassis::http::Limits;
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::Currency;
use thiserror::Error;

use crate::live::{CHANGES_KEPT, StreamLimits};
use crate::log::LogUrl;

/// Reads orders.events into a database of the read side and answers questions about orders.
#[derive(Debug, Parser)]
#[command(name = "order-query", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Project the topic and serve the API
    Serve(Box<Config>),
    /// Apply the migrations that are missing, and end
    Migrate(Migrate),
    /// Ask a running service whether it is ready; the exit code tells
    Healthcheck(Healthcheck),
    /// Build the read model anew beside the one that is served, verify it, and have it served; a running service goes on
    Rebuild(Box<Rebuild>),
    /// Have the generation served again that was served before
    Rollback(Box<Rollback>),
    /// List the generations of the read model
    Generations(Look),
    /// Print what the rows of the served generation add up to: equal for equal rows, in either database
    Digest(Look),
}

/// Everything that the service can be told.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// Where the API listens
    #[arg(long, env = "QUERY_LISTEN", default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,

    /// Where operators' requests are taken
    #[arg(
        help = "Where operators' requests are taken; unless given, 127.0.0.1 and the API's port + 1000. \
                Whoever reaches it may change the read model",
        long,
        env = "QUERY_ADMIN_LISTEN"
    )]
    pub admin_listen: Option<SocketAddr>,

    /// Where the read model lives
    #[command(flatten)]
    pub database: Database,

    /// Whether missing migrations are applied at start
    #[arg(long, env = "MIGRATE", value_enum, default_value = "auto")]
    pub migrate: MigrateAtStart,

    /// Currency of messages that name none, and of amounts in filters that name none
    #[arg(long, env = "DEFAULT_CURRENCY", default_value = "USD")]
    pub default_currency: Currency,

    /// The topic.
    #[command(flatten)]
    pub kafka: Kafka,

    /// Where the event log is, to fetch what the topic misses: the base URL of order-command
    #[arg(long, env = "QUERY_LOG_URL", value_name = "URL")]
    pub log_url: Option<LogUrl>,

    /// Limits of the API.
    #[command(flatten)]
    pub http: Limits,

    /// Limits of the streams.
    #[command(flatten)]
    pub streams: Streams,

    /// How long a list may take that no index answers, and a count, in milliseconds
    #[arg(long, env = "QUERY_LIST_BUDGET_MS", default_value_t = 2_000)]
    pub list_budget_ms: u64,

    /// How log lines are written.
    #[command(flatten)]
    pub log: Log,

    /// Time to finish at shutdown before what still runs is cut off, in milliseconds
    #[arg(long, env = "DRAIN_GRACE_MS", default_value_t = 15_000)]
    pub drain_grace_ms: u64,
}

/// How far above the API's port operators are listened to, unless it is told.
const ADMIN_PORT_OFFSET: u16 = 1_000;

/// Settings that cannot be used together.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// There is no such port.
    #[error(
        "QUERY_ADMIN_LISTEN (--admin-listen) has to be set: it would be the API's port {port} + {ADMIN_PORT_OFFSET}, \
         and there is no port above 65535"
    )]
    AdminPort {
        /// Of the API.
        port: u16,
    },
}

impl Config {
    /// Where operators' requests are taken: as configured, else on this machine alone, so far above the API's port that
    /// several readers on one machine do not meet. A port of 0 stays 0.
    ///
    /// # Errors
    ///
    /// When it is not configured and there is no such port.
    pub fn admin_listen(&self) -> Result<SocketAddr, ConfigError> {
        if let Some(address) = self.admin_listen {
            return Ok(address);
        }
        let port = match self.listen.port() {
            0 => 0,
            port => port.checked_add(ADMIN_PORT_OFFSET).ok_or(ConfigError::AdminPort { port })?,
        };
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    /// Time for a list that no index answers.
    pub fn list_budget(&self) -> Duration {
        Duration::from_millis(self.list_budget_ms)
    }

    /// Time to finish at shutdown.
    pub fn drain_grace(&self) -> Duration {
        Duration::from_millis(self.drain_grace_ms)
    }
}

/// Limits of `GET /orders/stream`.
#[derive(Debug, Clone, Copy, Args)]
pub struct Streams {
    /// Streams at once
    #[arg(long = "streams-max", env = "QUERY_STREAMS_MAX", default_value_t = StreamLimits::default().streams_max)]
    pub streams_max: usize,

    /// How long a stream's client may take nothing before it is cut, in milliseconds
    #[arg(long = "stream-stall-ms", env = "QUERY_STREAM_STALL_MS", default_value_t = 10_000)]
    pub stall_ms: u64,

    /// How many of the last changes are kept for clients that resume; more once a client may be away for longer
    #[arg(long = "changes-kept", env = "QUERY_CHANGES_KEPT", default_value_t = CHANGES_KEPT)]
    pub changes_kept: u32,
}

impl Streams {
    /// The limits of the streams.
    pub fn limits(&self) -> StreamLimits {
        let stall_max = Duration::from_millis(self.stall_ms);
        StreamLimits { streams_max: self.streams_max, stall_max, ..StreamLimits::default() }
    }
}

/// Where the read model lives.
#[derive(Debug, Clone, Args)]
pub struct Database {
    /// The read model: a file of this node, or a database that nodes share
    #[arg(
        help = "The read model: a file of this node, as sqlite:///var/lib/orders.db, or a database that nodes share, \
                as postgres://user@host/database",
        long = "database-url",
        env = "QUERY_DATABASE_URL"
    )]
    pub url: Secret,
}

/// How log lines are written.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// For people or for machines
    #[arg(long = "log-format", env = "LOG_FORMAT", value_enum, default_value = "pretty")]
    pub format: LogFormat,

    /// Which lines, as in info,query=debug
    #[arg(long = "log-filter", env = "LOG_FILTER", default_value = "info")]
    pub filter: String,
}

/// Whether missing migrations are applied at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MigrateAtStart {
    /// They are.
    Auto,
    /// Somebody else applies them.
    Off,
}

/// What `migrate` can be told.
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    /// Where the read model lives.
    #[command(flatten)]
    pub database: Database,

    /// How log lines are written.
    #[command(flatten)]
    pub log: Log,
}

/// What `rebuild` can be told.
#[derive(Debug, Clone, Args)]
pub struct Rebuild {
    /// Read the event log of order-command (`QUERY_LOG_URL`) instead of the topic from offset zero
    #[arg(long)]
    pub from_log: bool,

    /// What it reads and writes.
    #[command(flatten)]
    pub building: Building,
}

/// What `rollback` can be told.
#[derive(Debug, Clone, Args)]
pub struct Rollback {
    /// What it reads and writes.
    #[command(flatten)]
    pub building: Building,
}

/// What a generation is built from and where.
#[derive(Debug, Clone, Args)]
pub struct Building {
    /// Where the read model lives.
    #[command(flatten)]
    pub database: Database,

    /// The topic.
    #[command(flatten)]
    pub kafka: Kafka,

    /// Where the event log is: the base URL of order-command
    #[arg(long, env = "QUERY_LOG_URL", value_name = "URL")]
    pub log_url: Option<LogUrl>,

    /// Currency of messages that name none
    #[arg(long, env = "DEFAULT_CURRENCY", default_value = "USD")]
    pub default_currency: Currency,

    /// How many of the last changes are kept for clients that resume
    #[arg(long = "changes-kept", env = "QUERY_CHANGES_KEPT", default_value_t = CHANGES_KEPT)]
    pub changes_kept: u32,

    /// How log lines are written.
    #[command(flatten)]
    pub log: Log,
}

/// What `generations` and `digest` can be told.
#[derive(Debug, Clone, Args)]
pub struct Look {
    /// Where the read model lives.
    #[command(flatten)]
    pub database: Database,

    /// How log lines are written.
    #[command(flatten)]
    pub log: Log,
}

/// What `healthcheck` can be told.
#[derive(Debug, Clone, Args)]
pub struct Healthcheck {
    /// Where the service listens
    #[arg(long, env = "QUERY_LISTEN", default_value = "127.0.0.1:8001")]
    pub listen: SocketAddr,

    /// How log lines are written.
    #[command(flatten)]
    pub log: Log,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["order-query", "serve", "--database-url", "sqlite://x.db"]).unwrap();
        let Command::Serve(config) = cli.command else { panic!("{cli:?}") };
        assert_eq!(config.listen.port(), 8001);
        assert_eq!(config.kafka.topic, "orders.events");
        assert_eq!(config.default_currency.code(), "USD");
    }

    #[test]
    fn operators_are_listened_to_beside_the_api() {
        let admin = |arguments: &[&str]| {
            let all = ["order-query", "serve", "--database-url", "sqlite://x.db"].iter().chain(arguments);
            let Command::Serve(config) = Cli::try_parse_from(all).unwrap().command else { panic!("{arguments:?}") };
            config.admin_listen().map(|address| address.to_string())
        };
        assert_eq!(admin(&[]).unwrap(), "127.0.0.1:9001");
        assert_eq!(admin(&["--listen", "0.0.0.0:8011"]).unwrap(), "127.0.0.1:9011");
        assert_eq!(admin(&["--listen", "127.0.0.1:0"]).unwrap(), "127.0.0.1:0");
        assert_eq!(admin(&["--listen", "[::1]:65000"]), Err(ConfigError::AdminPort { port: 65_000 }));
        assert_eq!(admin(&["--listen", "[::1]:65000", "--admin-listen", "[::1]:1"]).unwrap(), "[::1]:1");
    }
}
