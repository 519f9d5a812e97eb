//! A sound event that cannot be applied yet (rules R10): kept whole, tried again when its order moves.

use domain::{OrderId, Version};

use crate::gate::Cause;
use crate::intake::{Digest, Headers, Position, Record};

/// A waiting event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Whose event.
    pub order_id: OrderId,
    /// Which of its events.
    pub version: Version,
    /// Of the message.
    pub digest: Digest,
    /// Why it waits.
    pub cause: Cause,
    /// Where it stood.
    pub position: Position,
    /// The exact text.
    pub message: String,
    /// Its headers.
    pub headers: Headers,
}

impl Parked {
    /// The record as it was read. Its key was checked before it was kept.
    pub fn to_record(&self) -> Record {
        Record {
            position: self.position,
            key: None,
            payload: Some(self.message.clone().into_bytes()),
            headers: self.headers.clone(),
        }
    }
}
