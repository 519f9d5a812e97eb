//! The command side: REST → decide → PostgreSQL (events + aggregate + outbox) → relay → Kafka.
//!
//! Read [`executor`] first: it is the write path. [`relay`] takes over where it ends.

pub mod api;
pub mod executor;

pub mod catalog;
pub mod idempotency;
pub mod store;

pub mod relay;

pub mod check;
pub mod republish;

pub mod config;
mod gauges;
pub mod metrics;
mod probe;
mod service;

use sqlx::migrate::Migrator;

pub use service::{Error, Role, Service, database, relay_setup};

/// The schema's history, as `sqlx migrate run --source migrations/command` applies it.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations/command");
