//! What any service bolts on: configuration, telemetry, tasks, HTTP, Kafka, PostgreSQL.
//!
//! Suggested reading order: [`tasks`] (how a process lives and ends), [`http`] (what every API shares),
//! [`kafka`] (the only place that names the client library), [`postgres`].
//!
//! **Invariant:** this crate knows no orders. It depends on none of our crates, and nothing here would
//! have to change if the services sold bicycles by the hour.

pub mod config;
pub mod telemetry;

pub mod outage;

pub mod metrics;

pub mod tasks;

pub mod trace;

pub mod http;

pub mod kafka;

pub mod postgres;

#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
