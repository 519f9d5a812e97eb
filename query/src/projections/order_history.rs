//! One row per applied event: the audit trail, and what a repeated event is compared with (rules R9).

use domain::{OrderEvent, Recorded};

use crate::intake::{Digest, Record};

/// An event as it is kept.
#[derive(Debug, Clone, Copy)]
pub struct HistoryRow<'a> {
    /// What happened, decoded.
    pub recorded: &'a Recorded<OrderEvent>,
    /// The first 16 bytes of the SHA-256 of the message.
    pub digest: Digest,
    /// The exact text that was on the topic.
    pub message: &'a str,
    /// Who caused it, where the headers tell.
    pub actor: Option<&'a str>,
    /// The conversation it belongs to, where the headers tell.
    pub correlation_id: Option<&'a str>,
    /// What caused it, where the headers tell.
    pub causation_id: Option<&'a str>,
}

impl<'a> HistoryRow<'a> {
    /// The row of an event and the record that brought it.
    pub fn of(recorded: &'a Recorded<OrderEvent>, record: &'a Record, digest: Digest) -> Self {
        Self {
            recorded,
            digest,
            message: record.text(),
            actor: record.headers.get("ce_actor"),
            correlation_id: record.headers.get("ce_correlationid"),
            causation_id: record.headers.get("ce_causationid"),
        }
    }
}
