//! `order-dev`: the whole system on one machine, and the chores around it.
//!
//! `cargo dev` (or `make run`, which builds the services first) runs a private PostgreSQL, a real Kafka and
//! both services in the foreground. Read `up.rs` first, then `stack.rs` and `child.rs`; `trial.rs` is
//! `cargo dev test`, `load.rs` is the load generator.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person at a terminal")]

mod account;
mod backing;
mod child;
mod config;
mod error;
mod follow;
mod home;
mod identity;
mod kafka;
mod load;
mod packages;
mod ports;
mod postgres;
mod probe;
mod services;
mod signals;
mod solo;
mod stack;
mod terminal;
mod trial;
mod up;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::Builder;

use crate::config::{Action, Cli, UpArgs};
use crate::error::{Attempt as _, Error};
use crate::home::Medium;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("order-dev: {}", terminal::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Error> {
    let mut builder = match &cli.action {
        Some(Action::Load(_)) => Builder::new_multi_thread(),
        // One thread starts every child and outlives them all: the kernel watches the thread, not the
        // process, when it is asked to tell a child of its parent's death.
        _ => Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build().attempt(|| "start the runtime".to_owned())?;
    runtime.block_on(act(cli))
}

async fn act(cli: &Cli) -> Result<ExitCode, Error> {
    match &cli.action {
        None => up::run(cli, &UpArgs::from_environment()?).await?,
        Some(Action::Up(args)) => up::run(cli, args).await?,
        Some(Action::Test(args)) => return trial::run(cli, args, Medium::Memory).await,
        Some(Action::Bench(args)) => return trial::bench(cli, args).await,
        Some(Action::Load(args)) => load::run(args).await?,
        Some(Action::Kafka(args)) => solo::kafka(cli, args).await?,
        Some(Action::Postgres(args)) => solo::postgres(cli, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}
