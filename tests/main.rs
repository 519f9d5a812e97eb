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

/// `order-command` may die at any moment.
mod crash_command;

/// `order-query` may die at any moment.
mod crash_query;

/// Readers that share a database die, freeze and drain; one projects, and the figures stay exact.
mod read_failover;

/// Relays die, freeze and compete; nothing is lost and only one publishes.
mod relay_failover;

/// Who commits late is published all the same, and nobody waits for anybody.
mod late_commit;

/// Clients hang up in the middle of a request.
mod disconnects;

/// A commit that fails is never acknowledged.
mod aborted_commit;

/// The broker dies, stays away for a while, and comes back.
mod broker_outage;

/// Somebody changes the topic's settings or its partitions while everything runs.
mod topic_changed;

/// Somebody deletes the topic.
mod topic_recreated;

/// The log's database is moved to another server, or an older backup of it is restored.
mod moved_database;

/// Somebody else writes to the topic, in transactions.
mod other_producers;

/// An event never reaches the topic.
mod healing;

/// An operator deals with what was not applied.
mod operators;

/// The read model is built anew beside the one that is served.
mod rebuild;

/// A rebuild that is killed goes on, and a program with newer projections begins one by itself.
mod rebuild_resumed;

/// The beginning of the topic is gone, and the event log still has it.
mod rebuild_from_log;

/// Nodes and streams follow a promotion.
mod rebuild_followed;

/// The first order after a start is as fast as any other.
mod first_order;

/// SIGTERM does not wait for a broker that is gone.
mod broker_gone;

/// SIGTERM ends a service without a lost request.
mod drain;

/// What a service refuses at start, and what it can start without.
mod startup;

/// `make run`, twice.
mod make_run;

/// An operator repeats and restores events while everything runs.
mod chores;

/// The commands of the README work as they stand.
mod readme;
