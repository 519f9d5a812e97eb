//! What the load did, in figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::book::Kind;
use crate::config::LoadArgs;

/// Counts and latencies, gathered while the load runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    /// By kind, in microseconds.
    latencies_us: [Vec<u32>; Kind::ALL.len()],
    visible_us: Vec<u32>,
    never_visible: u64,
    failures: BTreeMap<String, u64>,
}

impl Tally {
    /// A command succeeded this long after it was due.
    pub(super) fn succeeded_after(&self, kind: Kind, latency: Duration) {
        let index = Kind::ALL.iter().position(|other| *other == kind);
        let mut figures = self.lock();
        if let Some(latencies) = index.and_then(|index| figures.latencies_us.get_mut(index)) {
            latencies.push(micros(latency));
        }
    }

    /// A watched command became visible this long after its answer.
    pub(super) fn visible_after(&self, latency: Duration) {
        self.lock().visible_us.push(micros(latency));
    }

    /// A watched command did not become visible in time.
    pub(super) fn never_visible(&self) {
        self.lock().never_visible += 1;
    }

    /// Something failed.
    pub(super) fn failed(&self, cause: String) {
        *self.lock().failures.entry(cause).or_default() += 1;
    }

    /// How many commands succeeded.
    pub(super) fn succeeded(&self) -> u64 {
        self.lock().latencies_us.iter().map(|latencies| count(latencies)).sum()
    }

    /// How many failed.
    pub(super) fn failures(&self) -> u64 {
        self.lock().failures.values().sum()
    }

    /// The report.
    pub(super) fn report(&self, args: &LoadArgs, took: Duration) -> String {
        let (succeeded, failed) = (self.succeeded(), self.failures());
        let mut figures = self.lock();
        let seconds = took.as_secs_f64().max(f64::EPSILON);
        let rate = succeeded as f64 / seconds;
        let mut text = format!(
            "\n{succeeded} commands in {seconds:.1} s: {rate:.1}/s of {}/s wanted, {failed} failed\n\n  {:<10}{:>9}{:>12}{:>12}{:>12}{:>12}\n",
            args.rate, "", "count", "p50", "p95", "p99", "max"
        );
        for (kind, latencies) in Kind::ALL.iter().zip(&mut figures.latencies_us) {
            row(&mut text, kind.name(), latencies);
        }
        row(&mut text, "visible", &mut figures.visible_us);
        text.push_str("\n  Latency counts from the moment a command was due. \"visible\" counts from the answer of\n  a command to its sight in the query service, for a sample of them.\n");
        if figures.never_visible > 0 {
            line(&mut text, format_args!("  {} were not visible within 10 s", figures.never_visible));
        }
        for (cause, times) in &figures.failures {
            line(&mut text, format_args!("  failed {times} times: {cause}"));
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn row(text: &mut String, name: &str, latencies: &mut [u32]) {
    latencies.sort_unstable();
    let at = |share: f64| percentile(latencies, share).map_or_else(|| "-".to_owned(), milliseconds);
    line(
        text,
        format_args!(
            "  {name:<10}{:>9}{:>12}{:>12}{:>12}{:>12}",
            latencies.len(),
            at(0.50),
            at(0.95),
            at(0.99),
            at(1.0)
        ),
    );
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    writeln!(text, "{content}").ok();
}

/// The smallest value that at least this share of the sorted values does not exceed.
fn percentile(sorted: &[u32], share: f64) -> Option<u32> {
    let rank = (share * sorted.len() as f64).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
    let index = (rank as usize).saturating_sub(1);
    sorted.get(index).copied()
}

fn micros(latency: Duration) -> u32 {
    u32::try_from(latency.as_micros()).unwrap_or(u32::MAX)
}

fn milliseconds(micros: u32) -> String {
    format!("{:.1} ms", f64::from(micros) / 1000.0)
}

fn count(latencies: &[u32]) -> u64 {
    u64::try_from(latencies.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u32> = (1..=100).collect();
        assert_eq!(percentile(&values, 0.50), Some(50));
        assert_eq!(percentile(&values, 0.99), Some(99));
        assert_eq!(percentile(&values, 1.0), Some(100));
        assert_eq!(percentile(&values[..1], 0.50), Some(1));
        assert_eq!(percentile(&[], 0.50), None);
    }

    #[test]
    fn what_failed_is_in_the_report_with_its_cause() {
        let tally = Tally::default();
        tally.succeeded_after(Kind::Place, Duration::from_micros(1_500));
        tally.failed("pay: 409 order-already-paid".to_owned());
        let args =
            LoadArgs { rate: 10, duration: 1, connections: 1, command_url: String::new(), query_url: String::new() };
        let report = tally.report(&args, Duration::from_secs(1));
        assert!(report.contains("1 commands in 1.0 s"), "{report}");
        assert!(report.contains("1.5 ms"), "{report}");
        assert!(report.contains("failed 1 times: pay: 409 order-already-paid"), "{report}");
    }
}
