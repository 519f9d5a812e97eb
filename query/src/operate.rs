//! What an operator does to generations from a terminal: each a command that ends.
#![expect(clippy::print_stdout, reason = "what was asked for is told on standard output")]

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::tasks::terminated;
use chassis::telemetry;
use chrono::DateTime;
use indicatif::{ProgressBar, ProgressStyle};
use query::config::{Building, Look, Rebuild as RebuildConfig};
use query::follow::Projecting;
use query::freshness::Freshness;
use query::generation::{Builder, FIRST, Source};
use query::log::LogClient;
use query::progress::Progress;
use query::rebuild::{Phase, Promoted, Rebuild, Told};
use query::store::{Generations, Opened};
use query::verify::shown;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Failure;

/// How often the bar moves while nothing is told.
const TICK: Duration = Duration::from_millis(200);

/// Builds the next generation and has it served.
pub(crate) async fn rebuild(config: RebuildConfig) -> Result<(), Failure> {
    let RebuildConfig { from_log, building } = config;
    telemetry::init(building.log.format, &building.log.filter)?;
    let source = if from_log { Source::Log } else { Source::Topic };
    let (rebuild, told) = prepared(&building, source).await?;
    let stop = CancellationToken::new();
    let bar = tokio::spawn(show(told));
    let mut work = Box::pin(rebuild.run(&stop));
    let ended = tokio::select! {
        ended = &mut work => ended,
        () = terminated() => {
            stop.cancel();
            work.as_mut().await
        }
    };
    drop(work);
    // The bar ends with the one who tells.
    rebuild.generations.close().await;
    drop(rebuild);
    bar.await?;
    let Promoted { number, report, read: (records, took) } = ended?;
    let rate = u128::from(records) * 1_000 / took.as_millis().max(1);
    println!("generation {number} is served: {} events, {records} records read at {rate}/s", report.events);
    print(&report.tables);
    Ok(())
}

/// Has the generation before served again.
pub(crate) async fn roll_back(config: Building) -> Result<(), Failure> {
    telemetry::init(config.log.format, &config.log.filter)?;
    let (rebuild, _told) = prepared(&config, Source::Topic).await?;
    let number = rebuild.roll_back(&CancellationToken::new()).await?;
    rebuild.generations.close().await;
    println!("generation {number} is served again");
    Ok(())
}

/// Lists the generations.
pub(crate) async fn generations(config: Look) -> Result<(), Failure> {
    telemetry::init(config.log.format, &config.log.filter)?;
    let generations = Generations::at(&config.database.url)?;
    let live = generations.live().await?;
    for found in generations.list().await? {
        let mark = if found.number == live.number { "*" } else { " " };
        let started = DateTime::from_timestamp_micros(found.started_at_micros).unwrap_or_default();
        let (number, state, source) = (found.number, found.state.as_str(), found.source.as_str());
        println!("{mark} {number:>3}  {state:8}  from the {source:5}  begun {started:.0?}  {}", found.revisions);
    }
    generations.close().await;
    Ok(())
}

/// Prints the digest of the served generation.
pub(crate) async fn digest(config: Look) -> Result<(), Failure> {
    telemetry::init(config.log.format, &config.log.filter)?;
    let generations = Generations::at(&config.database.url)?;
    let store = generations.open(generations.live().await?.number).await?.store;
    print(&shown(&store.digests().await?));
    store.close().await;
    generations.close().await;
    Ok(())
}

fn print(tables: &BTreeMap<&'static str, (u64, String)>) {
    for (table, (rows, digest)) in tables {
        println!("{table:16} {rows:>10} rows  {digest}");
    }
}

async fn prepared(config: &Building, source: Source) -> Result<(Rebuild, watch::Receiver<Option<Told>>), Failure> {
    let generations = Generations::at(&config.database.url)?;
    // The pointer is in the tables of the first one, which no service may have made yet.
    let Opened { store, mut writer, .. } = generations.open(FIRST).await?;
    writer.migrate().await?;
    writer.close().await?;
    store.close().await;
    let (telling, told) = watch::channel(None);
    let projecting = Projecting {
        kafka: config.kafka.clone(),
        default_currency: config.default_currency,
        freshness: Freshness::default(),
        progress: Progress::default(),
        changes_kept: config.changes_kept,
        log: config.log_url.as_ref().map(LogClient::new).transpose()?,
    };
    Ok((Rebuild { generations, projecting, source, builder: Builder::Command, telling }, told))
}

/// A bar on the terminal; where there is none, nothing: the log tells the beginning and the end.
async fn show(mut told: watch::Receiver<Option<Told>>) {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{msg:>12} {bar:40} {pos}/{len} records  {per_sec}  ETA {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(TICK);
    while told.changed().await.is_ok() {
        let Some(told) = *told.borrow_and_update() else { continue };
        bar.set_length(u64::try_from(told.built.total).unwrap_or(0));
        bar.set_position(u64::try_from(told.built.done).unwrap_or(0));
        bar.set_message(told.phase.as_str());
        if told.phase == Phase::Promoted {
            bar.finish();
        }
    }
    bar.abandon();
}
