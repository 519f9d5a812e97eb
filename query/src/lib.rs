//! The read side: events from the topic, projected into tables that answer questions.
//!
//! Suggested reading order: [`projector`] (the loop), [`gate`] (what becomes of an event), [`batch`] (the fold),
//! [`projection`] and [`projections`] (the read models), [`store`], [`api`].
//!
//! - **Invariant:** everything here can be rebuilt from the topic; nothing here is the only copy of anything, except
//!   dead letters and what operators decided.
//! - **Invariant:** the API never writes; [`admin`] writes down what operators wish, and nothing else.

pub mod projector;

pub mod reader;

pub mod intake;

pub mod gate;

pub mod batch;

pub mod parked;

pub mod dead_letter;

pub mod log;

pub mod healing;

pub mod hex;

pub mod intervention;

pub mod checkpoint;

pub mod projection;

pub mod projections;

pub mod sum;

pub mod generation;

pub mod follow;

pub mod verify;

pub mod rebuild;

pub mod store;

pub mod freshness;

pub mod time_travel;

pub mod progress;

pub mod live;

pub mod metrics;

pub mod lag;

pub mod api;

pub mod admin;

pub mod config;

pub mod service;

mod cores;
