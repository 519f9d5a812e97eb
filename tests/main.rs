//! What the whole system promises, on a real PostgreSQL and a real Kafka: one file per promise.
//!
//! Run by `make test`, which brings the servers. `world` is the stage; everything else here is a promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's way to fail"
)]

mod world;

/// An order placed over REST is stored, published, projected and read back.
mod placing;

/// An order is led through its life, and readers' figures follow.
mod lifecycle;

/// The six published fields are a contract in both directions.
mod published_message;

/// One key, one order, one answer.
mod idempotency;
