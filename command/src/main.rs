//! `order-command`: parse, check, serve, drain, say how it ended.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use chassis::config::parse_or_exit;
use chassis::http::health;
use chassis::tasks::terminated;
use chassis::telemetry::{self, ErrorChain};
use chassis::{kafka, postgres};
use command::config::{Action, Chore, Cli, Log, Tuning};
use command::relay::reconcile::reconcile;
use command::republish::republish;
use command::{Role, Service, check, database, relay, relay_setup, schema};

/// A third of the CPU of a command or a record went into the system's allocator (docs/DESIGN.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for settings that cannot be used, as for flags that cannot be read.
const EXIT_CONFIG: u8 = 64;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Service(#[from] command::Error),
    #[error("the database cannot be used")]
    Database(#[from] postgres::Error),
    #[error("the chore failed")]
    Relay(#[from] relay::Error),
    #[error("the service is not ready")]
    NotReady(#[from] health::Error),
    #[error("logging cannot be set up")]
    Telemetry(#[from] telemetry::Error),
    #[error("the topic cannot be used")]
    Topic(#[from] kafka::topic::Unfit),
    #[error("cannot write to standard output")]
    Output(#[from] std::io::Error),
}

fn main() -> ExitCode {
    let cli: Cli = parse_or_exit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads to run on");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run_to_its_end(cli));
    // Threads that ask a broker that is gone are not waited for: each would take up to ten seconds.
    runtime.shutdown_background();
    code
}

async fn run_to_its_end(cli: Cli) -> ExitCode {
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = %ErrorChain(&error), "order-command ends");
            match error {
                Failure::Service(command::Error::Config(_)) => ExitCode::from(EXIT_CONFIG),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.action {
        Action::Serve(config) => {
            log(&config.log)?;
            Service::start(&config, Role::Commands).await?.run(terminated()).await?;
        }
        Action::Relay(config) => {
            log(&config.log)?;
            Service::start(&config, Role::Relay).await?.run(terminated()).await?;
        }
        Action::Migrate(config) => {
            log(&config.log)?;
            schema::migrate(&config.database.database_url).await?;
            tracing::info!("the schema is up to date");
        }
        Action::Republish(config) => {
            log(&config.chore.log)?;
            let setup = chore(&config.chore).await?;
            let work = republish(&setup, &config.selection, handover(&config.chore));
            let published = setup.status.watch(work).await?;
            writeln!(std::io::stdout(), "republished {published} events to {}", setup.topic.name)?;
        }
        Action::Reconcile(config) => {
            log(&config.log)?;
            let setup = chore(&config).await?;
            let restored = setup.status.watch(reconcile(&setup, handover(&config))).await?;
            writeln!(std::io::stdout(), "restored {restored} events to {}", setup.topic.name)?;
        }
        Action::Check(config) => {
            log(&config.log)?;
            let setup = chore_setup(&config)?;
            let report = setup.status.watch(check::check(&setup, config.default_currency)).await?;
            writeln!(std::io::stdout(), "{report}")?;
            return Ok(if report.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Action::Healthcheck(config) => {
            log(&config.log)?;
            health::probe(config.listen.listen).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log(log: &Log) -> Result<(), telemetry::Error> {
    telemetry::init(log.log_format, &log.log_filter)
}

fn handover(config: &Chore) -> Duration {
    Duration::from_millis(config.handover_ms)
}

/// What a chore needs that publishes; the topic is made if it is gone altogether.
async fn chore(config: &Chore) -> Result<relay::Setup, Failure> {
    let setup = chore_setup(config)?;
    kafka::topic::ensure(&setup.brokers, &setup.topic).await.map_err(kafka::topic::Unfit::from)?;
    Ok(setup)
}

fn chore_setup(config: &Chore) -> Result<relay::Setup, postgres::Error> {
    let setup = relay_setup(database(&config.database)?, &config.kafka, Tuning::default().relay());
    Ok(relay::Setup { status: relay::status::Status::of_a_chore(), ..setup })
}
