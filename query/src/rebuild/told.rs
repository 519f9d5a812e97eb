//! What a rebuild tells of itself.

use std::time::Duration;

use crate::generation::{Built, Number};

/// What a rebuild is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It reads its source.
    Reading,
    /// It makes the indexes.
    Indexing,
    /// It compares what it has with its source.
    Verifying,
    /// It was promoted.
    Promoted,
}

impl Phase {
    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reading => "reading",
            Self::Indexing => "indexing",
            Self::Verifying => "verifying",
            Self::Promoted => "promoted",
        }
    }
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Of which generation.
    pub number: Number,
    /// What it is doing.
    pub phase: Phase,
    /// How much of its source it has read.
    pub built: Built,
    /// Records in the last second, or since it was started if that is less long ago.
    pub rate_per_s: u64,
}

impl Told {
    /// How long the reading will take at this rate; none when that cannot be told.
    pub fn eta(&self) -> Option<Duration> {
        let left = u64::try_from(self.built.total - self.built.done).unwrap_or(0);
        left.checked_div(self.rate_per_s).map(Duration::from_secs)
    }
}
