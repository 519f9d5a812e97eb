//! What a batch has to know beforehand.

use std::collections::{BTreeMap, BTreeSet};

use domain::schema::Origin;
use domain::{OrderId, Version};

use super::ParkedKey;
use crate::intake::{Digest, Incoming, Meaning, Position};
use crate::parked::Parked;
use crate::projections::orders::OrderRow;

/// What the store knows about the orders of a batch.
#[derive(Debug, Default)]
pub struct Known {
    /// The rows of those orders that have one.
    pub rows: Vec<OrderRow>,
    /// The waiting events of those orders.
    pub parked: Vec<Parked>,
    /// The events of those orders that were discarded.
    pub discarded: Vec<ParkedKey>,
    /// The dead letters that were discarded, as far as a record of the batch may be one.
    pub discarded_letters: BTreeSet<(Position, Digest)>,
    /// The digests of applied events, as far as [`Known::compared`] asks for them.
    pub digests: BTreeMap<(OrderId, Version), Digest>,
    /// The first messages of orders, as far as [`Known::published`] asks for them.
    pub first_messages: BTreeMap<OrderId, String>,
}

impl Known {
    fn last_versions(&self) -> BTreeMap<OrderId, Version> {
        self.rows.iter().map(|row| (row.order_id, row.version)).collect()
    }

    /// The applied events that some record of the batch, or some waiting one, has to be compared with.
    pub fn compared(&self, incoming: &[Incoming]) -> BTreeSet<(OrderId, Version)> {
        let last = self.last_versions();
        let arriving = incoming.iter().filter_map(|incoming| incoming.meaning.subject());
        let waiting = self.parked.iter().map(|parked| (parked.order_id, parked.version));
        let applied = |(order_id, version): &(OrderId, Version)| last.get(order_id).is_some_and(|last| version <= last);
        arriving.chain(waiting).filter(applied).collect()
    }

    /// The known orders that a message of the six published fields tells about once more.
    pub fn published(&self, incoming: &[Incoming]) -> BTreeSet<OrderId> {
        let last = self.last_versions();
        let told = incoming.iter().filter_map(|incoming| match &incoming.meaning {
            Meaning::Event { recorded, origin: Origin::PublishedFieldsOnly } => Some(recorded.order_id),
            _ => None,
        });
        // A waiting event of version 1 may be such a message.
        let waiting = self.parked.iter().filter(|parked| parked.version == Version::FIRST);
        told.chain(waiting.map(|parked| parked.order_id)).filter(|order_id| last.contains_key(order_id)).collect()
    }
}
