//! `order-dev`: the whole system on one machine, and the chores around it.
//!
//! `cargo dev` (or `make run`, which builds the services first) runs a private PostgreSQL, a real Kafka and
//! both services in the foreground. Read `up.rs` first, then `stack.rs` and `child.rs`; `trial.rs` is
//! `cargo dev test`, `load.rs` is the load generator.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a person at a terminal")]

mod account;
mod child;
mod config;
mod error;
mod follow;
mod home;
mod identity;
mod kafka;
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

use crate::config::{Action, Cli, UpArgs};
use crate::error::Error;

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
    // One thread starts every child and outlives them all: the kernel watches the thread, not the process,
    // when it is asked to tell a child of its parent's death.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = error::Attempt::attempt(runtime, || "start the runtime".to_owned())?;
    let done = |outcome: Result<(), Error>| outcome.map(|()| ExitCode::SUCCESS);
    match &cli.action {
        None => done(
            runtime
                .block_on(up::run(cli, &UpArgs::from_environment().map_err(|error| Error::Usage(error.to_string()))?)),
        ),
        Some(Action::Up(args)) => done(runtime.block_on(up::run(cli, args))),
        Some(Action::Test(args)) => runtime.block_on(trial::run(cli, args)),
        Some(Action::Kafka(args)) => done(runtime.block_on(solo::kafka(cli, args))),
        Some(Action::Postgres(args)) => done(runtime.block_on(solo::postgres(cli, args))),
    }
}
