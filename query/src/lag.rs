//! How far the projection is behind the end of the topic, and what it could not apply.

use std::convert::Infallible;
use std::time::Duration;

use chassis::config::Kafka;
use chassis::kafka::topic::end_offsets;
use chassis::telemetry::ErrorChain;
use chrono::Utc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::metrics::{LAG_EVENTS, LAG_SECONDS, LETTERS_AGE_SECONDS, LETTERS_KEPT, PARKED, PARKED_AGE_SECONDS};
use crate::progress::Progress;
use crate::store::Store;
use crate::store::answer::Backlog;

/// How often the ends of the partitions are asked for.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
const MICROS_PER_MILLI: i64 = 1_000;

/// Samples until `shutdown`.
///
/// # Errors
///
/// None: what cannot be asked now is asked again.
pub async fn sample(
    kafka: Kafka,
    store: Store,
    progress: Progress,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let sampled = async {
            ticks.tick().await;
            end_offsets(&kafka.brokers, &kafka.topic, kafka.partitions).await
        };
        let ends = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            ends = sampled => ends,
        };
        match ends {
            Ok(ends) => progress.ends(&ends),
            // The projector says so loudly; here the last sample stands.
            Err(error) => tracing::debug!(error = %ErrorChain(&error), "the ends of the partitions are not known now"),
        }
        if progress.is_standby() {
            follow(&store, &progress).await;
        }
        show(&progress);
        match store.backlog().await {
            Ok(backlog) => show_backlog(backlog),
            Err(error) => tracing::debug!(error = %ErrorChain(&error), "what waits is not known now"),
        }
    }
}

/// What another node has applied is known from what it stored.
async fn follow(store: &Store, progress: &Progress) {
    match store.checkpoints().await {
        Ok(checkpoints) => progress.applied(&checkpoints),
        Err(error) => tracing::debug!(error = %ErrorChain(&error), "the checkpoints are not known now"),
    }
}

/// From the tables themselves, so every node tells the same, and a restart forgets nothing.
fn show_backlog(backlog: Backlog) {
    let count = |number: i64| f64::from(i32::try_from(number).unwrap_or(i32::MAX));
    metrics::gauge!(PARKED).set(count(backlog.parked));
    metrics::gauge!(LETTERS_KEPT).set(count(backlog.dead_letters));
    metrics::gauge!(PARKED_AGE_SECONDS).set(backlog.oldest_parked_micros.map_or(0.0, age_s));
    metrics::gauge!(LETTERS_AGE_SECONDS).set(backlog.oldest_letter_micros.map_or(0.0, age_s));
}

/// How long ago that was, in seconds.
pub(crate) fn age_s(since_micros: i64) -> f64 {
    let age = Utc::now().timestamp_micros().saturating_sub(since_micros).max(0);
    Duration::from_micros(u64::try_from(age).unwrap_or(0)).as_secs_f64()
}

fn show(progress: &Progress) {
    let mut behind = false;
    for partition in progress.partitions() {
        let lag = partition.lag();
        behind |= lag > 0;
        let shown = f64::from(i32::try_from(lag).unwrap_or(i32::MAX));
        metrics::gauge!(LAG_EVENTS, "partition" => partition.partition.to_string()).set(shown);
    }
    let age = progress.newest_event_micros().map(|newest| Utc::now().timestamp_micros().saturating_sub(newest).max(0));
    let age_ms = age.filter(|_age| behind).map_or(0, |age| age / MICROS_PER_MILLI);
    let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
    metrics::gauge!(LAG_SECONDS).set(age.as_secs_f64());
}
