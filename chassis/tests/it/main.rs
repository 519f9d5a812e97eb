//! Chassis against a real PostgreSQL and a real broker: what no mock can say.
#![allow(clippy::unwrap_used, reason = "a test's way to fail")]

mod codecs;
mod durability;
mod pooler;
mod silent_server;
mod test_database;
mod topic;
mod transactions;
