//! What a relay tells about itself while it works: for readiness, for gauges, and for the watch over a step that is silent.

use std::future::{Ready, ready};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::outage::Outage;
use tokio::time::{Instant, sleep_until};

use super::{Ahead, Error};

/// How long a step may be silent. It doubles with each step that was given up for it, because the work may just be long.
const SILENCE: Duration = Duration::from_secs(5);
const SILENCE_MAX: Duration = Duration::from_secs(240);
/// How long a chore may be silent: an operator started it, and one statement may read all of the log.
const CHORE_SILENCE: Duration = Duration::from_secs(30 * 60);

/// A relay's account of itself, shared with whoever asks.
#[derive(Debug, Clone)]
pub struct Status(Arc<Mutex<Account>>);

#[derive(Debug)]
struct Account {
    /// By when the step must show a sign of life.
    due: Instant,
    silence: Duration,
    in_office_until: Option<Instant>,
    published: Option<Instant>,
    publishing: Outage,
    drift: Option<String>,
    /// When the topic's settings were read for the last time.
    verified: Option<Instant>,
    ahead: Option<Ahead>,
}

/// What readiness and the gauges show.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Whether this process may publish now.
    pub in_office: bool,
    /// How long ago the last event was acknowledged; none when there was none yet.
    pub published_ago: Option<Duration>,
    /// For how long every step has failed, and why; none while steps succeed.
    pub failing: Option<(Duration, String)>,
    /// The setting of the topic that is not as it must be.
    pub drift: Option<String>,
    /// How long ago the topic's settings were read; none when they never were.
    pub verified_ago: Option<Duration>,
    /// The orders of which the topic has more than the log, while this process is in office: nothing is published.
    pub ahead: Option<Ahead>,
}

impl Default for Status {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Account {
            due: Instant::now() + SILENCE,
            silence: SILENCE,
            in_office_until: None,
            published: None,
            publishing: Outage::new("publishing events"),
            drift: None,
            verified: None,
            ahead: None,
        })))
    }
}

impl Status {
    /// The account of a chore.
    pub fn of_a_chore() -> Self {
        let status = Self::default();
        status.account().silence = CHORE_SILENCE;
        status.alive();
        status
    }

    /// Does the work of a chore, and gives it up when nothing is heard for half an hour.
    ///
    /// # Errors
    ///
    /// The work's, or [`Error::Silent`].
    pub async fn watch<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            done = work => done,
            silent = self.silent() => Err(silent),
        }
    }

    /// What is known now.
    pub fn report(&self) -> Report {
        let account = self.account();
        let error = account.publishing.error().unwrap_or_default().to_owned();
        Report {
            in_office: account.in_office_until.is_some_and(|until| Instant::now() < until),
            published_ago: account.published.map(|at| at.elapsed()),
            failing: account.publishing.lasts().map(|lasts| (lasts, error)),
            drift: account.drift.clone(),
            verified_ago: account.verified.map(|at| at.elapsed()),
            ahead: account.ahead.clone(),
        }
    }

    /// A check for readiness: whether anything may be published, as far as this process knows.
    pub fn may_publish(&self) -> impl Fn() -> Ready<Result<(), String>> + Send + Sync + 'static {
        let status = self.clone();
        move || {
            let Report { ahead, drift, .. } = status.report();
            // A start would refuse the topic for the same reason.
            let wrong = ahead.map(|ahead| format!("{ahead}; nothing is published")).or(drift);
            ready(wrong.map_or(Ok(()), Err))
        }
    }

    /// Notes what a look at the topic's settings found; logs a change.
    pub(crate) fn drifts(&self, drift: Option<String>) {
        let mut account = self.account();
        match (&account.drift, &drift) {
            (None, None) => {}
            (Some(before), Some(now)) if before == now => {}
            (_, Some(now)) => tracing::error!(drift = now, "the topic is not what it must be"),
            (Some(_), None) => tracing::info!("the topic is what it must be again"),
        }
        account.drift = drift;
        account.verified = Some(Instant::now());
    }

    /// A sign of life: something answered.
    pub(crate) fn alive(&self) {
        let mut account = self.account();
        account.due = Instant::now() + account.silence;
    }

    /// Announces a wait that has a deadline of its own.
    pub(super) fn waits(&self, at_most: Duration) {
        let mut account = self.account();
        account.due = Instant::now() + at_most + account.silence;
    }

    /// Ends when the step has been silent for too long.
    pub(super) async fn silent(&self) -> Error {
        loop {
            let due = self.account().due;
            if Instant::now() >= due {
                break;
            }
            sleep_until(due).await;
        }
        let mut account = self.account();
        let silent_ms = account.silence.as_millis();
        account.silence = (account.silence * 2).min(SILENCE_MAX);
        Error::Silent { silent_ms }
    }

    /// Notes until when the lease can be trusted; none without a lease.
    pub(super) fn in_office(&self, until: Option<Instant>) {
        self.account().in_office_until = until;
    }

    pub(super) fn published(&self) {
        self.account().published = Some(Instant::now());
    }

    /// Notes whether the topic is ahead of the log.
    pub(super) fn ahead(&self, ahead: Option<Ahead>) {
        self.account().ahead = ahead;
    }

    /// Notes that a step succeeded.
    pub(super) fn works(&self) {
        let mut account = self.account();
        account.publishing.works();
        account.silence = SILENCE;
    }

    /// Notes that a step failed.
    pub(super) fn failed(&self, error: &Error) {
        self.account().publishing.failed(error);
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        // Every change is one assignment: the account is whole even when somebody panicked beside it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_step_is_noticed_and_given_longer_the_next_time() {
        let status = Status::default();
        for expected in [SILENCE, SILENCE * 2, SILENCE * 4] {
            status.alive();
            let begun = Instant::now();
            assert!(matches!(status.silent().await, Error::Silent { .. }));
            assert_eq!(begun.elapsed().as_secs(), expected.as_secs());
        }
        status.works();
        status.waits(Duration::from_secs(30));
        let begun = Instant::now();
        status.silent().await;
        assert_eq!(begun.elapsed().as_secs(), 35, "a wait that was announced is none of silence");
    }

    #[tokio::test(start_paused = true)]
    async fn an_office_ends_by_itself_and_an_outage_has_an_age() {
        let status = Status::default();
        status.in_office(Some(Instant::now() + Duration::from_secs(2)));
        status.failed(&Error::LeaseLost);
        assert!(status.report().in_office);
        tokio::time::advance(Duration::from_secs(3)).await;
        let report = status.report();
        assert!(!report.in_office, "nobody renewed the lease");
        assert_eq!(report.failing, Some((Duration::from_secs(3), "the lease is lost".to_owned())));
        assert_eq!(report.published_ago, None);
        status.works();
        assert_eq!(status.report().failing, None);
    }
}
