//! Benchmarks as a command: `cargo dev bench append`. Each prints our figure beside the limit of the machine and a naive
//! design, measured in turns in the same run, and the ratios, which are what carries over to other machines.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a program for a person at a terminal")]

mod append;
mod baseline;
mod events;
mod floor;
mod growth;
mod held;
mod http;
mod lists;
mod load;
mod peers;
mod process;
mod project;
mod read;
mod rebuild;
mod relay;
mod report;
mod roles;
mod rows;
mod visible;
mod warm;

use std::time::Duration;

use clap::{Parser, ValueEnum};

use report::Row;
use roles::Told;

/// As the services have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Path {
    /// Commands in process, many callers and one.
    Append,
    /// Commands over HTTP, everything switched on.
    Http,
    /// Draining an outbox to Kafka.
    Relay,
    /// Lists of the read model over a million orders, in both stores: plans and times.
    Lists,
    /// The projection into SQLite and PostgreSQL.
    Project,
    /// Building the read model anew, beside the one that is served.
    Rebuild,
    /// Reads over HTTP.
    Read,
    /// From the answer of a command to the sight of its order.
    Visible,
    /// Appending and reading when there is more and more.
    Growth,
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
    #[command(flatten)]
    told: Told,
}

/// How long and how often.
#[derive(Debug, Clone, Copy)]
struct Plan {
    quick: bool,
    rounds: usize,
    round: Duration,
    /// How long what must go on for long goes on.
    long: Duration,
}

fn main() {
    let options = Options::parse();
    let plan = if options.quick {
        Plan { quick: true, rounds: 3, round: Duration::from_secs(2), long: Duration::from_secs(10) }
    } else {
        Plan { quick: false, rounds: 5, round: Duration::from_secs(4), long: Duration::from_secs(300) }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let Some(role) = options.told.role {
        return runtime.block_on(roles::run(role, &options.told));
    }
    if options.path == Path::Lists {
        return runtime.block_on(lists::show_plans(plan));
    }
    let rows = runtime.block_on(measure(options.path, plan));
    println!("{}", report::table(&rows));
    if let Some(path) = options.json {
        std::fs::write(path, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
    }
}

async fn measure(path: Path, plan: Plan) -> Vec<Row> {
    let asked = |one| path == one || path == Path::All;
    let mut rows = Vec::new();
    warm::log_files().await;
    if asked(Path::Append) {
        rows.extend(append::measure(plan).await);
    }
    if [Path::Http, Path::Relay, Path::Rebuild, Path::Read, Path::Visible].into_iter().any(asked) {
        warm::broker().await;
    }
    if asked(Path::Http) {
        rows.extend(http::measure(plan).await);
    }
    if asked(Path::Relay) {
        rows.extend(relay::measure(plan).await);
        rows.extend(held::measure(plan).await);
    }
    if asked(Path::Project) {
        rows.extend(project::measure(plan).await);
    }
    if asked(Path::Rebuild) {
        rows.extend(rebuild::measure(plan).await);
    }
    if asked(Path::Read) {
        rows.extend(read::measure(plan).await);
    }
    if asked(Path::Visible) {
        rows.extend(visible::measure(plan).await);
    }
    if asked(Path::Growth) {
        rows.extend(growth::measure(plan).await);
    }
    rows
}
