//! The query service on both of its stores, a real SQLite file and a real PostgreSQL: the projector
//! driven by hand, the API through its router.
//!
//! One file per promise. The topic itself is played in `world`; the system tests put a real one in its place.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "a rate is told to people")]

mod contracts;

mod description;

mod ages;
mod world;

mod gate;

mod published_fields;

mod transaction;

mod totals;

mod cancellations;

mod lists;

mod budgets;

mod plans;

mod orders;

mod verification;

mod waiting;

mod caching;

mod time_travel;

mod replay;

mod topic;

mod rebuild;

mod service;

mod live;

mod resuming;

mod input;

mod desk;

mod interventions;

mod healing;

mod sharing;

mod both;

mod speed;
