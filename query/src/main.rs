//! `order-query`: the read side of the order service.

mod operate;

use std::process::ExitCode;

use chassis::config::parse_or_exit;
use chassis::http::health::probe;
use chassis::tasks::terminated;
use chassis::telemetry::{self, ErrorChain};
use query::config::{Cli, Command, Config, Healthcheck, Migrate};
use query::service::{Service, StartError};
use query::store::{Opened, open};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A third of the CPU of a command or a record went into the system's allocator (docs/DESIGN.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code for settings that cannot be used, as for flags that cannot be read.
const EXIT_CONFIG: u8 = 64;

fn main() -> ExitCode {
    let Cli { command } = parse_or_exit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no threads to run on");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run_to_its_end(command));
    // Everything is closed. A thread that still asks a broker that is gone would be waited for up to ten seconds.
    runtime.shutdown_background();
    code
}

async fn run_to_its_end(command: Command) -> ExitCode {
    let ended = match command {
        Command::Serve(config) => run(*config).await,
        Command::Migrate(config) => migrate(config).await,
        Command::Healthcheck(config) => healthcheck(config).await,
        Command::Rebuild(config) => operate::rebuild(*config).await,
        Command::Rollback(config) => operate::roll_back(config.building).await,
        Command::Generations(config) => operate::generations(config).await,
        Command::Digest(config) => operate::digest(config).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %ErrorChain(error.as_ref()), "order-query failed");
            match error.downcast_ref::<StartError>() {
                Some(StartError::Config(_)) => ExitCode::from(EXIT_CONFIG),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(config: Config) -> Result<(), Failure> {
    telemetry::init(config.log.format, &config.log.filter)?;
    let service = Service::start(config).await?;
    service.run(terminated()).await?;
    tracing::info!("drained: the read model is closed");
    Ok(())
}

async fn migrate(config: Migrate) -> Result<(), Failure> {
    telemetry::init(config.log.format, &config.log.filter)?;
    let Opened { mut writer, .. } = open(&config.database.url).await?;
    writer.migrate().await?;
    writer.close().await?;
    tracing::info!("the read model is migrated");
    Ok(())
}

async fn healthcheck(config: Healthcheck) -> Result<(), Failure> {
    telemetry::init(config.log.format, &config.log.filter)?;
    probe(config.listen).await?;
    Ok(())
}
