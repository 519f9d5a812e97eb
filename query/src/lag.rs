//! What the metrics say of the projection: how far it is behind the topic, and what it could not apply.
//!
//! **Invariant:** a value whose source does not answer is shown as `NaN`, never as its last value and never as zero. How old
//! the last answers are is shown beside it.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use chassis::config::Kafka;
use chassis::kafka;
use chassis::kafka::topic::Asker;
use chassis::telemetry::ErrorChain;
use chrono::Utc;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::{
    ENDS_AGE_SECONDS, LAG_EVENTS, LAG_SECONDS, LETTERS_AGE_SECONDS, LETTERS_KEPT, PARKED, PARKED_AGE_SECONDS,
    READ_AGE_SECONDS, TOPIC_READABLE,
};
use crate::progress::{KNOWN_FOR, Progress};
use crate::store::answer::Backlog;
use crate::store::{self, Store};

/// How often the metrics are brought up to date.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// How long the brokers and the database may take to answer. Together they keep the values that are shown fresh.
const QUESTION_TIMEOUT: Duration = Duration::from_millis(1_500);

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
    let mut asker = None;
    loop {
        let sampled = async {
            ticks.tick().await;
            // Beside each other: who does not answer keeps nobody else from being shown.
            tokio::join!(
                ends(&kafka, &mut asker),
                in_time(store.backlog()),
                in_time(async { if progress.is_standby() { store.checkpoints().await.map(Some) } else { Ok(None) } }),
            )
        };
        let (ends, backlog, checkpoints) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            sampled = sampled => sampled,
        };
        // What another node has applied is known from what it stored.
        if let Some(Some(checkpoints)) = checkpoints {
            progress.applied(&checkpoints);
        }
        if let Some(ends) = ends {
            progress.ends(&ends);
        }
        show(&progress);
        show_backlog(backlog);
    }
}

/// Where the partitions end; none when the brokers do not tell. The projector says so loudly.
async fn ends(kafka: &Kafka, asker: &mut Option<Asker>) -> Option<Vec<(i64, i64)>> {
    let asked = async {
        if asker.is_none() {
            *asker = Some(Asker::connect(&kafka.brokers)?.within(QUESTION_TIMEOUT));
        }
        match asker {
            Some(asker) => asker.end_offsets(&kafka.topic, kafka.partitions).await,
            None => Ok(Vec::new()),
        }
    };
    let ends: Result<_, kafka::Error> = asked.await;
    ends.inspect_err(
        |error| tracing::debug!(error = %ErrorChain(error), "the ends of the partitions are not known now"),
    )
    .ok()
}

/// The database's answer; none when it fails or takes too long.
async fn in_time<T>(question: impl Future<Output = Result<T, store::Error>>) -> Option<T> {
    match timeout(QUESTION_TIMEOUT, question).await {
        Ok(Ok(answer)) => Some(answer),
        Ok(Err(error)) => {
            tracing::debug!(error = %ErrorChain(&error), "the read model does not answer now");
            None
        }
        Err(_elapsed) => None,
    }
}

/// From the tables themselves, so every node tells the same, and a restart forgets nothing.
fn show_backlog(backlog: Option<Backlog>) {
    let shown = |value: fn(&Backlog) -> f64| backlog.as_ref().map_or(f64::NAN, value);
    metrics::gauge!(PARKED).set(shown(|backlog| count(backlog.parked)));
    metrics::gauge!(LETTERS_KEPT).set(shown(|backlog| count(backlog.dead_letters)));
    metrics::gauge!(PARKED_AGE_SECONDS).set(shown(|backlog| backlog.oldest_parked_micros.map_or(0.0, age_s)));
    metrics::gauge!(LETTERS_AGE_SECONDS).set(shown(|backlog| backlog.oldest_letter_micros.map_or(0.0, age_s)));
}

fn count(number: i64) -> f64 {
    f64::from(i32::try_from(number).unwrap_or(i32::MAX))
}

/// How long ago that was, in seconds.
pub(crate) fn age_s(since_micros: i64) -> f64 {
    let age = Utc::now().timestamp_micros().saturating_sub(since_micros).max(0);
    Duration::from_micros(u64::try_from(age).unwrap_or(0)).as_secs_f64()
}

fn show(progress: &Progress) {
    for partition in progress.partitions() {
        let shown = partition.lag.map_or(f64::NAN, count);
        metrics::gauge!(LAG_EVENTS, "partition" => partition.partition.to_string()).set(shown);
    }
    let known = progress.knowledge();
    metrics::gauge!(LAG_SECONDS).set(known.behind.map_or(f64::NAN, |behind| behind.as_secs_f64()));
    metrics::gauge!(ENDS_AGE_SECONDS).set(known.ends_age.as_secs_f64());
    let standby = progress.is_standby();
    let read_age = if standby { f64::NAN } else { known.read_age.as_secs_f64() };
    metrics::gauge!(READ_AGE_SECONDS).set(read_age);
    let readable = match progress.trouble() {
        // Another node's to know.
        _ if standby => f64::NAN,
        Some(_trouble) => 0.0,
        // Nothing was said for too long: the projector itself is busy or hangs.
        None if known.read_age > KNOWN_FOR => f64::NAN,
        None => 1.0,
    };
    metrics::gauge!(TOPIC_READABLE).set(readable);
}
