//! `order-dev kafka` and `order-dev postgres`: one server in the foreground.
//!
//! They use the same data as `up`, unless `--data` names another directory; a test that kills or fills a
//! broker of its own starts it this way.

use std::path::Path;

use crate::config::{Cli, KafkaArgs, PostgresArgs};
use crate::error::Error;
use crate::home::Home;
use crate::kafka::{self, Kafka};
use crate::packages;
use crate::postgres::{self, Postgres};
use crate::signals::Signals;
use crate::stack::{Member, Stack};
use crate::terminal::say;
use crate::up;

/// Runs the broker until it is told to stop.
///
/// # Errors
/// When it cannot be started or keeps dying.
pub(crate) async fn kafka(cli: &Cli, args: &KafkaArgs) -> Result<(), Error> {
    foreground(cli, async |home: &Path| {
        let libs = cli.kafka_libs();
        packages::install(&kafka::needs(&libs)).await?;
        let kafka = Kafka::prepare(&kafka::Wish { home, libs: &libs, port: args.port }).await?;
        let about = (kafka.describe(), format!("KAFKA_BROKERS={}", kafka.brokers()));
        Ok((kafka.member(), about))
    })
    .await
}

/// Runs the database until it is told to stop.
///
/// # Errors
/// When it cannot be started or keeps dying.
pub(crate) async fn postgres(cli: &Cli, args: &PostgresArgs) -> Result<(), Error> {
    foreground(cli, async |home: &Path| {
        let bin = cli.pg_bin.as_deref();
        packages::install(&postgres::needs(bin)).await?;
        let wish =
            postgres::Wish { home, bin, port: args.port, database: up::DATABASE, connections_max: up::CONNECTIONS_MAX };
        let postgres = Postgres::prepare(&wish).await?;
        let about = (postgres.describe(), format!("COMMAND_DATABASE_URL={}", postgres.url(up::DATABASE)));
        Ok((postgres.member(), about))
    })
    .await
}

async fn foreground(
    cli: &Cli,
    prepare: impl AsyncFnOnce(&Path) -> Result<(Member, (String, String)), Error>,
) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let home = Home::take(cli.data.as_deref())?;
    let mut stack = Stack::default();
    let outcome = tokio::select! {
        outcome = async {
            let (member, (what, variable)) = prepare(home.path()).await?;
            say(format!("starting {what} …"));
            stack.start(vec![member]).await?;
            for (name, pid) in stack.pids() {
                say(format!("{name} is ready (pid {pid}): {variable}"));
            }
            Err(stack.watch().await)
        } => outcome,
        () = signals.next() => Ok(()),
    };
    stack.stop(&mut signals).await;
    outcome
}
