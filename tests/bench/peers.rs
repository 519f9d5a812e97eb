//! What other systems reached, quoted and not rebuilt: each as a share of a limit that this benchmark measures, too, because
//! only ratios carry over to another machine.
//!
//! Measured before this was written, on 2 cores with PostgreSQL 15 and Kafka, the peers' own load on the same cores: see
//! docs/PERFORMANCE.md.

use crate::report::Row;

/// Another system, and how far above it ours is to be.
#[derive(Debug)]
pub(crate) struct Peer {
    /// What it reached, as a share of the limit that was measured beside it.
    share: f64,
    name: &'static str,
    times: f64,
    goal: &'static str,
}

impl Peer {
    /// Ours beside what it would reach here, where the same limit is `limit`.
    pub(crate) fn row(&self, path: &str, ours: f64, unit: &'static str, limit: f64) -> Row {
        let reached = limit * self.share;
        Row::new(path, ours, unit).limit(reached, self.name).at_least(self.times, reached, self.goal)
    }
}

/// The tutorial's command service in Python: 1,580 requests a second where a route that only parses
/// answered 91,400. It stores nothing.
pub(crate) const TUTORIAL_COMMANDS: Peer =
    Peer { share: 1_580.0 / 91_400.0, name: "the tutorial's service, quoted", times: 15.0, goal: "15x the tutorial's" };

/// The tutorial's query service, a dict in memory: 3,440 requests a second where a constant was answered 92,600 times.
pub(crate) const TUTORIAL_READS: Peer =
    Peer { share: 3_440.0 / 92_600.0, name: "the tutorial's dict, quoted", times: 18.0, goal: "18x the tutorial's" };

/// Debezium's outbox router, a full drain: at best 134,000 events a second where librdkafka sent 363,000 from memory.
pub(crate) const DEBEZIUM_DRAIN: Peer =
    Peer { share: 134_000.0 / 363_000.0, name: "Debezium's drain, quoted", times: 1.7, goal: "1.7x Debezium's" };
