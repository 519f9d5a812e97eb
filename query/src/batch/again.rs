//! What is judged again because an operator asks for it: dead letters, and all that waits of an order.

use std::collections::{BTreeMap, BTreeSet};

use domain::schema::Origin;
use domain::{OrderId, Version};

use super::judge::{Fate, Judged};
use super::{Batch, Waiting};
use crate::gate::Cause;
use crate::intake::{Digest, Incoming, Meaning, Reason};

impl Batch {
    /// Takes a dead letter as if it came now. Tells why it still is one; none when it is not, whatever became of it.
    pub fn retry(&mut self, incoming: Incoming) -> Option<(Reason, String)> {
        let judged = self.judge(incoming);
        if let Fate::SetAside { reason, detail } = judged.fate {
            return Some((reason, detail));
        }
        let moves = judged.moves();
        self.settle(judged);
        if let Some(order_id) = moves {
            self.heal(order_id);
        }
        None
    }

    /// Judges everything that waits of an order afresh, whatever it waited for; tells how many events that were.
    ///
    /// Which of two contradicting events follows cannot be known, so neither is applied while both wait.
    pub fn rejudge(&mut self, order_id: OrderId) -> usize {
        let Some(order) = self.orders.get_mut(&order_id) else { return 0 };
        let waiting = std::mem::take(&mut order.waiting);
        let read = |waiting: Waiting| (Incoming::read(waiting.parked.to_record(), self.default_currency), waiting);
        let mut events: Vec<(Incoming, Waiting)> = waiting.into_iter().map(read).collect();
        // What tells the published fields alone can only be compared with the event itself, or with what came first.
        events.sort_by_key(|(incoming, waiting)| {
            let published = is_published(incoming).then_some(waiting.parked.position);
            (waiting.parked.version, published, waiting.parked.digest)
        });
        let contested = contested(&events);
        let count = events.len();
        for (incoming, waiting) in events {
            self.judge_again(incoming, waiting, &contested);
        }
        count
    }

    /// Takes a waiting event out for good and judges the rest afresh. False when it does not wait.
    pub fn discard(&mut self, order_id: OrderId, version: Version, digest: Digest) -> bool {
        let Some(order) = self.orders.get_mut(&order_id) else { return false };
        let named = |waiting: &Waiting| (waiting.parked.version, waiting.parked.digest) == (version, digest);
        let Some(at) = order.waiting.iter().position(named) else { return false };
        order.waiting.remove(at);
        order.discarded.push((version, digest));
        self.rejudge(order_id);
        true
    }

    /// In which partition the events of an order are; none when none of them waits.
    pub fn partition_of(&self, order_id: OrderId) -> Option<i32> {
        self.orders.get(&order_id)?.waiting.first().map(|waiting| waiting.parked.position.partition)
    }

    /// How many events of an order wait.
    pub fn waiting(&self, order_id: OrderId) -> usize {
        self.orders.get(&order_id).map_or(0, |order| order.waiting.len())
    }

    fn judge_again(&mut self, incoming: Incoming, waiting: Waiting, contested: &BTreeSet<Version>) {
        let (order_id, version) = (waiting.parked.order_id, waiting.parked.version);
        let judged = self.judge(incoming);
        let judged = match judged.fate {
            Fate::Apply { .. } if contested.contains(&version) => {
                Judged { fate: Fate::Park { order_id, version, cause: Cause::Fork }, ..judged }
            }
            _ => judged,
        };
        self.settle_waiting(judged, waiting);
    }
}

fn is_published(incoming: &Incoming) -> bool {
    matches!(incoming.meaning, Meaning::Event { origin: Origin::PublishedFieldsOnly, .. })
}

/// The versions of which more than one event waits.
fn contested(events: &[(Incoming, Waiting)]) -> BTreeSet<Version> {
    let mut counts: BTreeMap<Version, usize> = BTreeMap::new();
    for (_incoming, waiting) in events.iter().filter(|(incoming, _waiting)| !is_published(incoming)) {
        *counts.entry(waiting.parked.version).or_default() += 1;
    }
    counts.into_iter().filter(|(_version, count)| *count > 1).map(|(version, _count)| version).collect()
}
