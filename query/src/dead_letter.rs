//! A record that can never have come from our relay (rules R10): kept whole, with the reason.

use crate::intake::{Digest, Reason, Record};

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The record.
    pub record: Record,
    /// Of its value.
    pub digest: Digest,
    /// Why.
    pub reason: Reason,
    /// Why, in words.
    pub detail: String,
}
