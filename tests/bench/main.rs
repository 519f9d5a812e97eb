//! Benchmarks as a command: `cargo dev bench append`. Each prints our figure beside the limit of the machine and a naive
//! design, measured in turns in the same run, and the ratios, which are what carries over to other machines.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a program for a person at a terminal")]

mod append;
mod lists;
mod relay;
mod report;
mod rows;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use report::Row;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Path {
    /// Commands in process, many callers and one.
    Append,
    /// Draining an outbox to Kafka.
    Relay,
    /// Lists of the read model over a million orders, in both stores: plans and times.
    Lists,
    /// All that has a goal: everything but the lists.
    All,
}

#[derive(Debug, Parser)]
struct Options {
    /// What to measure.
    #[arg(value_enum, default_value_t = Path::All)]
    path: Path,
    /// A minute's look: shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Write the rows to this file as JSON.
    #[arg(long)]
    json: Option<std::path::PathBuf>,
    /// Cargo passes it to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
struct Plan {
    quick: bool,
    rounds: usize,
    round: Duration,
}

fn main() {
    let options = Options::parse();
    let plan = if options.quick {
        Plan { quick: true, rounds: 3, round: Duration::from_secs(2) }
    } else {
        Plan { quick: false, rounds: 5, round: Duration::from_secs(6) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut rows: Vec<Row> = Vec::new();
    if matches!(options.path, Path::Append | Path::All) {
        rows.extend(runtime.block_on(append::measure(plan)));
    }
    if matches!(options.path, Path::Relay | Path::All) {
        rows.extend(runtime.block_on(relay::measure(plan)));
    }
    if options.path == Path::Lists {
        return runtime.block_on(lists::show_plans(plan));
    }
    println!("{}", report::table(&rows));
    if let Some(path) = options.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    }
}
