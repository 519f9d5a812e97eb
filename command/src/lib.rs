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
pub mod schema;
mod service;

pub use schema::MIGRATOR;
pub use service::{Error, Role, Service, database, relay_setup};
