//! The services as they are shipped, each in a process of its own, and the designs that they are compared with.

use std::net::SocketAddr;

use chassis::config::LogFormat;
use chassis::tasks::terminated;
use chassis::{http, telemetry, testkit};
use clap::{Args, Parser, ValueEnum};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::baseline;
use crate::process::Process;

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// `order-command serve`.
    Command,
    /// The same without its relay.
    CommandAlone,
    /// `order-command relay`.
    Relay,
    /// `order-query serve`.
    Query,
    /// The designs that ours are compared with, behind the same HTTP server.
    Baseline,
}

/// What a process is told.
#[derive(Debug, Args)]
pub(crate) struct Told {
    /// Run as a service instead of measuring.
    #[arg(long, value_enum, hide = true)]
    pub(crate) role: Option<Role>,
    #[arg(long, hide = true, default_value = "")]
    database: String,
    #[arg(long, hide = true, default_value = "")]
    topic: String,
}

/// Starts `order-command` with everything that a service has switched on; `relay` says whether it publishes, too.
pub(crate) fn command(database: &str, topic: &str, relay: bool) -> Process {
    let role = if relay { "command" } else { "command-alone" };
    Process::start(&["--role", role, "--database", database, "--topic", topic])
}

/// Starts `order-command relay`: it publishes, and takes no commands.
pub(crate) fn relay(database: &str, topic: &str) -> Process {
    Process::start(&["--role", "relay", "--database", database, "--topic", topic])
}

/// Starts `order-query`.
pub(crate) fn query(database: &str, topic: &str) -> Process {
    Process::start(&["--role", "query", "--database", database, "--topic", topic])
}

/// Starts the other designs over this database.
pub(crate) fn baseline(database: &str) -> Process {
    Process::start(&["--role", "baseline", "--database", database])
}

/// Is what it was told to be until it is told to end.
pub(crate) async fn run(role: Role, told: &Told) {
    // As a service logs: spans are made, and nothing is written for a request.
    telemetry::init(LogFormat::Json, "info").unwrap();
    let brokers = testkit::brokers().0;
    let kafka = ["--kafka-brokers", &brokers, "--topic", &told.topic];
    let served = ["--listen", "127.0.0.1:0", "--database-url", &told.database];
    match role {
        Role::Command | Role::CommandAlone => {
            let relay = if role == Role::Command { "on" } else { "off" };
            let more = ["--seed-products", "prod-1=15.00,prod-2=12.50", "--relay", relay];
            let words = ["order-command", "serve"].into_iter().chain(served).chain(kafka).chain(more);
            let cli = command::config::Cli::parse_from(words);
            let command::config::Action::Serve(config) = cli.action else { panic!("not serve") };
            let service = command::Service::start(&config, command::Role::Commands).await.unwrap();
            say(service.addr());
            service.run(terminated()).await.unwrap();
        }
        Role::Relay => {
            let words = ["order-command", "relay"].into_iter().chain(served).chain(kafka);
            let cli = command::config::Cli::parse_from(words);
            let command::config::Action::Relay(config) = cli.action else { panic!("not relay") };
            let service = command::Service::start(&config, command::Role::Relay).await.unwrap();
            say(service.addr());
            service.run(terminated()).await.unwrap();
        }
        Role::Query => {
            let words = ["order-query", "serve"].into_iter().chain(served).chain(kafka);
            let query::config::Command::Serve(config) = query::config::Cli::parse_from(words).command else {
                panic!("not serve")
            };
            let service = query::service::Service::start(*config).await.unwrap();
            say(service.address());
            service.run(terminated()).await.unwrap();
        }
        Role::Baseline => {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            say(listener.local_addr().unwrap());
            let (router, shutdown) = (baseline::router(&told.database).await, CancellationToken::new());
            let serving = tokio::spawn({
                let shutdown = shutdown.clone();
                async move { http::serve(listener, http::finish(router), &http::Limits::default(), shutdown).await }
            });
            terminated().await;
            shutdown.cancel();
            serving.await.unwrap().unwrap();
        }
    }
}

fn say(addr: SocketAddr) {
    println!("{addr}");
}
