//! `order-dev up`: everything on one machine, until Ctrl-C.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{self, Cli, UpArgs};
use crate::error::{Attempt as _, Error};
use crate::home::Home;
use crate::kafka::{self, Kafka};
use crate::postgres::{self, Postgres};
use crate::services::{self, Backing, Services};
use crate::signals::Signals;
use crate::stack::Stack;
use crate::terminal::{human, say};
use crate::{packages, ports};

/// The name of the database of order-command.
pub(crate) const DATABASE: &str = "orders";
/// PostgreSQL's own default; the pools of the services and a person's psql fit into it.
pub(crate) const CONNECTIONS_MAX: u16 = 100;
/// How long one answer about a service's health may take.
const HEALTH_WITHIN: Duration = Duration::from_secs(2);

/// Runs everything in the foreground.
///
/// # Errors
/// When something cannot be started or keeps dying; what runs by then is stopped first.
pub(crate) async fn run(cli: &Cli, args: &UpArgs) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let home = Home::take(cli.data.as_deref())?;
    let mut stack = Stack::default();
    let outcome = tokio::select! {
        error = start_and_watch(cli, args, home.path(), &mut stack) => error,
        () = signals.next() => {
            say("\nstopping …");
            Ok(())
        }
    };
    if outcome.is_err() && !stack.is_empty() {
        say("stopping …");
    }
    stack.stop(&mut signals).await;
    if outcome.is_ok() {
        say(format!("stopped; the data stays in {}", home.path().display()));
    }
    outcome
}

async fn start_and_watch(cli: &Cli, args: &UpArgs, home: &Path, stack: &mut Stack) -> Result<(), Error> {
    let begun = Instant::now();
    let services = Services::locate(home)?;
    services.stop_leftovers().await;
    for (name, address) in [("order-command", args.command_listen), ("order-query", args.query_listen)] {
        if !ports::is_free(address) {
            let advice = "set COMMAND_LISTEN or QUERY_LISTEN to another address";
            return Err(Error::PortTaken { port: address.port(), what: name, advice });
        }
    }
    let backing = start_backing(cli, args, home, stack).await?;
    let client = reqwest::Client::builder().timeout(HEALTH_WITHIN).no_proxy().build();
    let client = client.map_err(std::io::Error::other).attempt(|| "make an HTTP client".to_owned())?;
    stack.start(services.members(&client, args, &backing)).await?;
    say(welcome(args, &backing, home, begun.elapsed()));
    Err(stack.watch().await)
}

/// Starts the database and the broker, unless they were given.
async fn start_backing(cli: &Cli, args: &UpArgs, home: &Path, stack: &mut Stack) -> Result<Backing, Error> {
    let libs = cli.kafka_libs();
    let mut needs = Vec::new();
    if args.command_database_url.is_none() {
        needs.extend(postgres::needs(cli.pg_bin.as_deref()));
    }
    if args.kafka_brokers.is_none() {
        needs.extend(kafka::needs(&libs));
    }
    packages::install(&needs).await?;
    let prepare_postgres = async {
        let wish = postgres::Wish {
            home,
            bin: cli.pg_bin.as_deref(),
            port: args.postgres_port,
            database: DATABASE,
            connections_max: CONNECTIONS_MAX,
        };
        if args.command_database_url.is_some() { Ok(None) } else { Postgres::prepare(&wish).await.map(Some) }
    };
    let prepare_kafka = async {
        let wish = kafka::Wish { home, libs: &libs, port: args.kafka_port };
        if args.kafka_brokers.is_some() { Ok(None) } else { Kafka::prepare(&wish).await.map(Some) }
    };
    let (postgres, kafka) = tokio::try_join!(prepare_postgres, prepare_kafka)?;
    let query = home.join("query");
    fs::create_dir_all(&query).attempt(|| format!("create {}", query.display()))?;
    let backing = Backing {
        command_database: args
            .command_database_url
            .clone()
            .or_else(|| postgres.as_ref().map(|postgres| postgres.url(DATABASE)))
            .unwrap_or_default(),
        query_database: args.query_database_url.clone().unwrap_or_else(|| services::sqlite_url(&query)),
        brokers: args.kafka_brokers.clone().or_else(|| kafka.as_ref().map(Kafka::brokers)).unwrap_or_default(),
    };
    for line in [postgres.as_ref().map(Postgres::describe), kafka.as_ref().map(Kafka::describe)].into_iter().flatten() {
        say(format!("starting {line} …"));
    }
    stack.start(postgres.map(Postgres::member).into_iter().chain(kafka.map(Kafka::member)).collect()).await?;
    Ok(backing)
}

/// What the person at the terminal needs to go on.
fn welcome(args: &UpArgs, backing: &Backing, home: &Path, took: Duration) -> String {
    let (command, query) = (host(args.command_listen), host(args.query_listen));
    let checkout = config::checkout();
    let logs = home.strip_prefix(checkout).unwrap_or(home).join("logs");
    format!(
        "\nReady after {took}.

  order-command  http://{command}   API: http://{command}/docs
  order-query    http://{query}   API: http://{query}/docs
  PostgreSQL     {postgres}
  Kafka          {brokers}
  logs           {logs}/*.log

Place an order, list the orders, read one, pay it:

  curl -X POST {command}/orders -H 'Content-Type: application/json' \\
    -d '{{\"customer_id\":\"customer-1\",\"items\":[{{\"sku\":\"prod-1\",\"quantity\":2}},{{\"sku\":\"prod-2\",\"quantity\":1}}]}}'
  curl {query}/orders
  curl {query}/orders/ORDER_ID
  curl -X POST {command}/orders/ORDER_ID/pay

Ctrl-C stops everything.",
        took = human(took),
        postgres = without_password(&backing.command_database),
        brokers = backing.brokers,
        logs = logs.display(),
    )
}

/// How a person writes the address on this machine.
fn host(address: SocketAddr) -> String {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("localhost:{}", address.port())
    } else {
        address.to_string()
    }
}

/// A database URL that may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password in the query part is as secret as one before the host.
    let rest = rest.split('?').next().unwrap_or(rest);
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or(user)),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://me:secret@db/orders"), "postgres://me@db/orders");
        assert_eq!(without_password("postgres://me:s@cret@db/orders?password=x"), "postgres://me@db/orders");
        assert_eq!(without_password("postgres://db/orders"), "postgres://db/orders");
    }

    #[test]
    fn loopback_is_called_localhost() {
        assert_eq!(host("127.0.0.1:8000".parse().unwrap()), "localhost:8000");
        assert_eq!(host("192.0.2.1:8000".parse().unwrap()), "192.0.2.1:8000");
    }
}
