//! `order-dev up`: everything on one machine, until Ctrl-C.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::backing::{self, Backing, Wish};
use crate::config::{self, Cli, UpArgs};
use crate::error::{Attempt as _, Error};
use crate::home::Home;
use crate::services::Services;
use crate::signals::Signals;
use crate::stack::Stack;
use crate::terminal::{human, say};
use crate::{kafka, ports, postgres};

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
    let libs = cli.kafka_libs();
    let wish = Wish {
        database_url: args.command_database_url.as_deref(),
        brokers: args.kafka_brokers.as_deref(),
        postgres: postgres::Wish {
            home,
            bin: cli.pg_bin.as_deref(),
            port: args.postgres_port,
            database: DATABASE,
            connections_max: CONNECTIONS_MAX,
        },
        kafka: kafka::Wish { home, libs: &libs, port: args.kafka_port },
    };
    let backing = backing::start(&wish, stack).await?;
    let client = reqwest::Client::builder().timeout(HEALTH_WITHIN).no_proxy().build();
    let client = client.map_err(std::io::Error::other).attempt(|| "make an HTTP client".to_owned())?;
    stack.start(services.members(&client, args, &backing)?).await?;
    say(welcome(args, &backing, home, begun.elapsed()));
    Err(stack.watch().await)
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
        postgres = backing::without_password(&backing.database_url),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_called_localhost() {
        assert_eq!(host("127.0.0.1:8000".parse().unwrap()), "localhost:8000");
        assert_eq!(host("192.0.2.1:8000".parse().unwrap()), "192.0.2.1:8000");
    }
}
