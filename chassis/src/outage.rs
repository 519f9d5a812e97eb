//! Outages in the log: one line when one begins and one when it ends, however often the work is tried meanwhile.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

use crate::telemetry::ErrorChain;

/// The outages of one piece of work that is tried again and again, such as publishing or reading a gauge.
///
/// Call [`Outage::failed`] after each try that failed and [`Outage::works`] after each that did not. Only the first of
/// either kind is logged. A failure of another kind than the last one that was logged is logged too, because the reason
/// has changed: the top line of the error tells the kind.
#[derive(Debug)]
pub struct Outage {
    what: &'static str,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    since: Instant,
    failures: u64,
    kind: String,
    error: String,
}

impl Outage {
    /// Work that has not failed yet. `what` names it in the log.
    pub const fn new(what: &'static str) -> Self {
        Self { what, current: None }
    }

    /// Notes a failure; logs it when an outage begins with it.
    pub fn failed(&mut self, error: &(dyn Error + 'static)) {
        let (kind, text) = (error.to_string(), ErrorChain(error).to_string());
        let current = self.current.get_or_insert_with(|| Current {
            since: Instant::now(),
            failures: 0,
            kind: String::new(),
            error: String::new(),
        });
        current.failures += 1;
        if current.kind == kind {
            tracing::debug!(what = self.what, error = text, failures = current.failures, "the outage lasts");
        } else if current.failures == 1 {
            tracing::warn!(what = self.what, error = text, "an outage begins; more failures like it are not logged");
        } else {
            tracing::warn!(what = self.what, error = text, "the outage has another reason now");
        }
        current.kind = kind;
        current.error = text;
    }

    /// Notes a success; logs the end of an outage with its duration.
    pub fn works(&mut self) {
        if let Some(Current { since, failures, .. }) = self.current.take() {
            let lasted_s = (since.elapsed().as_secs_f64() * 10.0).round() / 10.0;
            tracing::info!(what = self.what, lasted_s, failures, "the outage is over");
        }
    }

    /// How long the present outage has lasted; none when there is none.
    pub fn lasts(&self) -> Option<Duration> {
        self.current.as_ref().map(|current| current.since.elapsed())
    }

    /// The latest error of the present outage.
    pub fn error(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.error.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// What was logged.
    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_of_a_thousand_failures_is_two_lines() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut outage = Outage::new("publishing");
        outage.works();
        for _ in 0..1_000 {
            outage.failed(&io::Error::other("no broker"));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(outage.lasts(), Some(Duration::from_secs(100)));
        assert_eq!(outage.error(), Some("no broker"));
        outage.works();
        outage.works();
        let text = lines.text();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("WARN") && text.contains("no broker"), "{text}");
        assert!(text.contains("lasted_s=100") && text.contains("failures=1000"), "{text}");
        assert_eq!(outage.lasts(), None);
    }

    #[test]
    fn another_reason_is_another_line() {
        let lines = Lines::default();
        let subscriber = tracing_subscriber::fmt().with_writer(lines.clone()).with_ansi(false).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let mut outage = Outage::new("publishing");
        for reason in ["no broker", "no broker", "no database", "no database"] {
            outage.failed(&io::Error::other(reason));
        }
        assert_eq!(lines.text().lines().count(), 2, "{}", lines.text());
    }
}
