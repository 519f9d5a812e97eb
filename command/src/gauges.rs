//! What is sampled now and then for metrics and readiness: an unknown value is none, and its age grows.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::outage::Outage;
use chassis::postgres::{disconnect, in_time};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::executor::Executor;
use crate::metrics::{
    COMMANDS_QUEUED, OUTBOX_KNOWN_AGE_SECONDS, OUTBOX_OLDEST_AGE_SECONDS, OUTBOX_PENDING, RELAY_FAILING_SECONDS,
    RELAY_OWNER, TOPIC_DRIFT,
};
use crate::relay::progress::Progress;
use crate::relay::status::{Report, Status};
use crate::relay::{self, Setup};

/// How often gauges that cost nothing are set.
const TICK: Duration = Duration::from_secs(1);
/// How often the outbox is asked, and how long the answer may take.
const SAMPLE: Duration = Duration::from_secs(5);
const SAMPLE_DEADLINE: Duration = Duration::from_secs(4);
/// What was read of the topic's settings so long ago is not known any more.
const DRIFT_KNOWN: Duration = Duration::from_secs(60);

/// What is not published, as the outbox told it last.
#[derive(Debug, Clone)]
pub(crate) struct Backlog(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    since: Instant,
    /// How many events, and the age of the oldest in seconds; none when the last question was not answered.
    latest: Option<(i64, f64)>,
    /// The `seq` of the oldest, and when it was first seen here.
    oldest: Option<(i64, Instant)>,
}

impl Backlog {
    /// Nothing is known yet.
    pub(crate) fn unknown() -> Self {
        Self(Arc::new(Mutex::new(Known { since: Instant::now(), latest: None, oldest: None })))
    }

    /// For readiness.
    pub(crate) fn shown(&self) -> Value {
        let known = self.known();
        json!({
            "pending": known.latest.map(|(pending, _)| pending),
            "oldest_age_s": known.latest.map(|(_, oldest_age_s)| oldest_age_s),
            "known_age_s": known.since.elapsed().as_secs(),
        })
    }

    /// Notes an answer: how many events, the `seq` of the oldest, and its age by the clocks of others. An event whose writer's
    /// clock is ahead has no age by these; it ages here from the moment when it was first seen.
    fn note(&self, answer: Option<(i64, Option<i64>, f64)>) {
        let mut known = self.known();
        if let Some((_, oldest, _)) = answer {
            known.since = Instant::now();
            let seen = known.oldest.filter(|(seq, _)| Some(*seq) == oldest).map(|(_, since)| since);
            known.oldest = oldest.map(|seq| (seq, seen.unwrap_or_else(Instant::now)));
        }
        let here_s = known.oldest.map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
        let latest = answer.map(|(pending, _, age_s)| (pending, age_s.max(here_s)));
        known.latest = latest;
        let (pending, oldest_age_s) = latest.map_or((f64::NAN, f64::NAN), |(pending, age)| (pending as f64, age));
        metrics::gauge!(OUTBOX_PENDING).set(pending);
        metrics::gauge!(OUTBOX_OLDEST_AGE_SECONDS).set(oldest_age_s);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Two words are whole even when somebody panicked beside them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What readiness shows of the relay. Without a broker commands are taken all the same, so this makes nobody unready.
pub(crate) fn shown(Report { in_office, published_ago, failing, .. }: Report) -> Value {
    let (failing_s, error) = failing.map(|(lasts, error)| (lasts.as_secs(), error)).unzip();
    json!({
        "in_office": in_office,
        "published_s_ago": published_ago.map(|ago| ago.as_secs()),
        "failing_s": failing_s,
        "error": error,
    })
}

/// Sets the gauges that need no answer from anybody.
pub(crate) async fn tick(status: Status, backlog: Backlog, shutdown: CancellationToken) -> Result<(), Infallible> {
    while shutdown.run_until_cancelled(sleep(TICK)).await.is_some() {
        let report = status.report();
        metrics::gauge!(RELAY_OWNER).set(if report.in_office { 1.0 } else { 0.0 });
        metrics::gauge!(RELAY_FAILING_SECONDS).set(report.failing.map_or(0.0, |(lasts, _)| lasts.as_secs_f64()));
        let drift = match (report.drift, report.verified_ago) {
            (_, None) => f64::NAN,
            (_, Some(ago)) if ago > DRIFT_KNOWN => f64::NAN,
            (Some(_), _) => 1.0,
            (None, _) => 0.0,
        };
        metrics::gauge!(TOPIC_DRIFT).set(drift);
        metrics::gauge!(OUTBOX_KNOWN_AGE_SECONDS).set(backlog.known().since.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Reads the outbox's backlog from the table itself, so that it is told even when nobody publishes.
pub(crate) async fn sample_outbox(
    relay: Setup,
    backlog: Backlog,
    shutdown: CancellationToken,
) -> Result<(), Infallible> {
    let mut outage = Outage::new("reading the outbox's backlog");
    while shutdown.run_until_cancelled(sleep(SAMPLE)).await.is_some() {
        let asked = async {
            let mut connection = relay::connect(&relay.connect).await?;
            let latest = Progress::load(&mut connection, 0).await?.backlog(&mut connection).await?;
            disconnect(connection).await;
            Ok::<_, sqlx::Error>(latest)
        };
        match in_time(SAMPLE_DEADLINE, asked).await {
            Ok(latest) => {
                outage.works();
                backlog.note(Some(latest));
            }
            Err(error) => {
                outage.failed(&error);
                backlog.note(None);
            }
        }
    }
    Ok(())
}

/// Sets the gauge of the commands that wait in the lanes.
pub(crate) async fn sample_queue(executor: Executor, shutdown: CancellationToken) -> Result<(), Infallible> {
    while shutdown.run_until_cancelled(sleep(TICK)).await.is_some() {
        metrics::gauge!(COMMANDS_QUEUED).set(executor.queued() as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_backlog_that_cannot_be_read_is_null_and_its_age_grows() {
        let backlog = Backlog::unknown();
        backlog.note(Some((3, Some(7), 1.5)));
        assert_eq!(backlog.shown(), json!({ "pending": 3, "oldest_age_s": 1.5, "known_age_s": 0 }));
        tokio::time::advance(Duration::from_secs(40)).await;
        backlog.note(None);
        assert_eq!(backlog.shown(), json!({ "pending": null, "oldest_age_s": null, "known_age_s": 40 }));
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_event_ages_also_when_its_writers_clock_is_ahead() {
        let backlog = Backlog::unknown();
        let oldest_age_s = || backlog.shown()["oldest_age_s"].clone();
        backlog.note(Some((1, Some(7), 0.0)));
        tokio::time::advance(Duration::from_secs(30)).await;
        backlog.note(Some((2, Some(7), 0.0)));
        assert_eq!(oldest_age_s(), 30.0);
        backlog.note(Some((1, Some(8), 2.0)));
        assert_eq!(oldest_age_s(), 2.0);
        backlog.note(Some((0, None, 0.0)));
        assert_eq!(oldest_age_s(), 0.0);
    }

    #[test]
    fn a_relay_that_never_published_says_so() {
        let shown = shown(Status::default().report());
        assert_eq!(shown, json!({ "in_office": false, "published_s_ago": null, "failing_s": null, "error": null }));
    }
}
