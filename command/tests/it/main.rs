//! The command service against a real PostgreSQL, and its relay against a real Kafka, driven step by step.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod world;

mod catalog;
mod description;
mod executor;
mod http;
mod idempotency;
mod log;
mod lost_answers;
mod moved;
mod recreated;
mod relay;
mod schema;
mod sharing;
mod silence;
