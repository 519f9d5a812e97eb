//! Changes as they are applied, for clients that stay: `GET /orders/stream`.
//!
//! Suggested reading order: [`place`] (where a change stands, and the id that resumes after it), [`feed`] (one stream).
//!
//! - **Invariant:** what is told comes from the store alone, where a change is written in the transaction that applies
//!   it. Announcements only say that it is time to look.
//! - **Invariant:** a client that resumes gets every change after its id once, or is told `reset`.

pub mod feed;

pub mod place;

use std::time::Duration;

/// Changes that are kept for clients that resume, unless the configuration says otherwise.
pub const CHANGES_KEPT: u32 = 1_000_000;

/// The limits of the streams.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Streams at once.
    pub streams_max: usize,
    /// How long a client may take nothing before it is cut.
    pub stall_max: Duration,
    /// How long a node that is behind a client's id may take to catch up.
    pub behind_max: Duration,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { streams_max: 128, stall_max: Duration::from_secs(10), behind_max: Duration::from_secs(30) }
    }
}
