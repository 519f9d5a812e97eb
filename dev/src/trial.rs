//! `order-dev test`: a command with real servers that are gone afterwards.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::backing::{self, Backing, Wish};
use crate::config::{self, BenchArgs, Cli, TestArgs};
use crate::error::{Attempt as _, Error};
use crate::home::{Medium, Scratch};
use crate::signals::Signals;
use crate::stack::Stack;
use crate::terminal::{human, say};
use crate::{account, kafka, postgres};

/// Many tests have pools of their own, and run at the same time.
const CONNECTIONS_MAX: u16 = 300;
/// What a shell answers for a command that was ended by a signal; no number is known here.
const ENDED_BY_SIGNAL: u8 = 130;

/// Starts what was not given, runs the command, stops, and returns its exit code.
///
/// # Errors
/// When a server or the command cannot be started.
pub(crate) async fn run(cli: &Cli, args: &TestArgs, medium: Medium) -> Result<ExitCode, Error> {
    let mut signals = Signals::listen()?;
    let scratch = Scratch::create(medium, account::for_database()?.as_ref()).await?;
    let mut stack = Stack::default();
    let started = tokio::select! {
        servers = start(cli, args, scratch.path(), &mut stack) => servers.map(Some),
        () = signals.next() => Ok(None),
    };
    let outcome = match started {
        Ok(Some(servers)) => execute(cli, args, &servers, &mut signals).await,
        Ok(None) => Ok(ExitCode::from(ENDED_BY_SIGNAL)),
        Err(error) => Err(error),
    };
    stack.stop_quietly(&mut signals).await;
    outcome
}

/// Runs the benchmarks of `tests/bench` with servers of their own on a disk.
///
/// # Errors
/// When a server or the benchmark cannot be started.
pub(crate) async fn bench(cli: &Cli, args: &BenchArgs) -> Result<ExitCode, Error> {
    let cargo = ["cargo", "bench", "--locked", "--package", "tests", "--bench", "bench", "--"];
    let command = cargo.map(OsString::from).into_iter().chain(args.arguments.iter().cloned()).collect();
    let args = TestArgs { database_url: None, kafka_brokers: None, command };
    run(cli, &args, Medium::Disk).await
}

async fn start(cli: &Cli, args: &TestArgs, home: &Path, stack: &mut Stack) -> Result<Backing, Error> {
    let begun = Instant::now();
    let libs = cli.kafka_libs();
    let wish = Wish {
        database_url: args.database_url.as_deref(),
        brokers: args.kafka_brokers.as_deref(),
        postgres: postgres::Wish {
            home,
            bin: cli.pg_bin.as_deref(),
            port: Some(0),
            database: postgres::OWN_DATABASE,
            connections_max: CONNECTIONS_MAX,
        },
        kafka: kafka::Wish { home, libs: &libs, port: Some(0) },
    };
    let servers = backing::start(&wish, stack).await?;
    say(format!("ready after {}, data in {}", human(begun.elapsed()), home.display()));
    Ok(servers)
}

async fn execute(cli: &Cli, args: &TestArgs, servers: &Backing, signals: &mut Signals) -> Result<ExitCode, Error> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Error::Usage("give the command after --".to_owned()));
    };
    let bin = config::bin_dir().attempt(|| "find our own program".to_owned())?;
    let mut command = Command::new(program);
    command.args(rest);
    command.env("TEST_DATABASE_URL", &servers.database_url);
    command.env("TEST_KAFKA_BROKERS", &servers.brokers);
    command.env("ORDER_BIN_DIR", bin);
    command.env("ORDER_KAFKA_LIBS", cli.kafka_libs());
    // These would point the services under test at the wrong servers.
    for variable in ["COMMAND_DATABASE_URL", "QUERY_DATABASE_URL", "KAFKA_BROKERS"] {
        command.env_remove(variable);
    }
    let name = program.to_string_lossy().into_owned();
    let mut child = command.spawn().attempt(|| format!("run {name}"))?;
    loop {
        tokio::select! {
            status = child.wait() => {
                let status = status.attempt(|| format!("wait for {name}"))?;
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return Ok(ExitCode::from(code.unwrap_or(ENDED_BY_SIGNAL)));
            }
            () = signals.next() => pass_on(&child),
        }
    }
}

/// At a terminal the command had the Ctrl-C as well; a second request to end does no harm, and a `kill`
/// of ours alone reaches it this way.
fn pass_on(child: &Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
    }
}
