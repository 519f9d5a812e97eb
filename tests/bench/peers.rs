//! What other systems reached, quoted and not rebuilt: each as a share of a limit that this benchmark measures, too, because
//! only ratios carry over to another machine.
//!
//! Measured before this was written, on 2 cores with PostgreSQL 15 and Kafka, the peers' own load on the same cores: see
//! docs/PERFORMANCE.md.

/// The tutorial's command service in Python: 1,580 requests a second where a route that only parses
/// answered 91,400. It stores nothing.
pub(crate) const TUTORIAL_COMMANDS: f64 = 1_580.0 / 91_400.0;

/// The tutorial's query service, a dict in memory: 3,440 requests a second where a constant was answered 92,600 times.
pub(crate) const TUTORIAL_READS: f64 = 3_440.0 / 92_600.0;

/// Debezium's outbox router, a full drain: at best 134,000 events a second where librdkafka sent 363,000 from memory.
pub(crate) const DEBEZIUM_DRAIN: f64 = 134_000.0 / 363_000.0;
