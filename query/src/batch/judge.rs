//! What becomes of a record, decided before anything is changed.
//!
//! - **Invariant:** a decision carries all that it takes to be carried out, so no record can be dropped half-way: one that
//!   cannot be applied is a dead letter, and a dead letter is a row.

use domain::schema::{self, Origin};
use domain::{OrderEvent, OrderId, Recorded, Version};

use super::{Batch, Order};
use crate::gate::{Cause, Standing, Verdict};
use crate::intake::{Digest, Incoming, Meaning, Reason, Record};
use crate::projections::orders::OrderRow;

/// Why a contradiction is a dead letter, in words.
const CONTRADICTION: &str = "the order is known, and its published fields are told differently here";

/// What becomes of a record.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is its order's next event.
    Apply {
        /// What happened.
        recorded: Box<Recorded<OrderEvent>>,
        /// The order after it.
        after: Box<OrderRow>,
    },
    /// It is applied, or waits, already.
    Duplicate,
    /// It waits.
    Park {
        /// Whose event it is.
        order_id: OrderId,
        /// Which of its events.
        version: Version,
        /// Why it waits.
        cause: Cause,
    },
    /// It becomes a dead letter.
    SetAside {
        /// The stable code.
        reason: Reason,
        /// In words.
        detail: String,
    },
}

/// A record with what becomes of it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) record: Record,
    /// Of the record's value.
    pub(super) digest: Digest,
    pub(super) fate: Fate,
}

impl Judged {
    /// The order that moves on by this.
    pub(super) fn moves(&self) -> Option<OrderId> {
        match &self.fate {
            Fate::Apply { recorded, .. } => Some(recorded.order_id),
            Fate::Duplicate | Fate::Park { .. } | Fate::SetAside { .. } => None,
        }
    }
}

impl Fate {
    fn contradiction() -> Self {
        Self::SetAside { reason: Reason::Contradiction, detail: CONTRADICTION.to_owned() }
    }

    /// An event that is its order's next one. Only a creation can be the first: the intake sets anything else aside, and
    /// so does this.
    fn next(before: Option<&OrderRow>, recorded: Box<Recorded<OrderEvent>>) -> Self {
        match OrderRow::next(before, &recorded) {
            Some(after) => Self::Apply { recorded, after: Box::new(after) },
            None => {
                let detail = format!("an order cannot begin with `{}`", recorded.event.event_type());
                Self::SetAside { reason: Reason::OutOfPlace, detail }
            }
        }
    }
}

impl Batch {
    /// Decides what becomes of a record. Changes nothing.
    pub(super) fn judge(&self, incoming: Incoming) -> Judged {
        let Incoming { record, digest, meaning } = incoming;
        let fate = match meaning {
            Meaning::Event { recorded, origin } => self.judge_event(recorded, origin, digest),
            Meaning::Newer { order_id, version } => self.judge_newer(order_id, version, digest),
            Meaning::Garbage { reason, detail } => Fate::SetAside { reason, detail },
        };
        Judged { record, digest, fate }
    }

    fn judge_event(&self, recorded: Box<Recorded<OrderEvent>>, origin: Origin, digest: Digest) -> Fate {
        let (order_id, version) = (recorded.order_id, recorded.version);
        let nothing = Order::default();
        let order = self.orders.get(&order_id).unwrap_or(&nothing);
        let waiting = order.waiting();
        let standing = Standing { last: order.last(), waiting: &waiting, discarded: &order.discarded };
        let applied = self.applied_digest(order, order_id, version);
        let verdict = if origin == Origin::PublishedFieldsOnly {
            let same = (applied == Some(digest)).then_some(true);
            let agrees = same.or_else(|| self.agrees_with_first(order, &recorded.event, order_id));
            standing.judge_published(digest, agrees)
        } else {
            standing.judge(version, digest, applied, true)
        };
        match verdict {
            Verdict::Apply => Fate::next(order.row.as_deref(), recorded),
            Verdict::Duplicate => Fate::Duplicate,
            Verdict::Park(cause) => Fate::Park { order_id, version, cause },
            Verdict::Contradiction => Fate::contradiction(),
        }
    }

    fn judge_newer(&self, order_id: OrderId, version: Version, digest: Digest) -> Fate {
        let nothing = Order::default();
        let order = self.orders.get(&order_id).unwrap_or(&nothing);
        let waiting = order.waiting();
        let standing = Standing { last: order.last(), waiting: &waiting, discarded: &order.discarded };
        match standing.judge(version, digest, self.applied_digest(order, order_id, version), false) {
            // What is not understood is not applied.
            Verdict::Apply => Fate::Park { order_id, version, cause: Cause::Newer },
            Verdict::Duplicate => Fate::Duplicate,
            Verdict::Park(cause) => Fate::Park { order_id, version, cause },
            Verdict::Contradiction => Fate::contradiction(),
        }
    }

    fn applied_digest(&self, order: &Order, order_id: OrderId, version: Version) -> Option<Digest> {
        let here = order.applied_here.iter().filter_map(|index| self.applied.get(*index));
        let mut here = here.filter(|applied| applied.recorded.version == version);
        here.next().map(|applied| applied.digest).or_else(|| self.digests.get(&(order_id, version)).copied())
    }

    /// Whether a repeated creation tells what the applied one told; none when that one is not understood.
    fn agrees_with_first(&self, order: &Order, told: &OrderEvent, order_id: OrderId) -> Option<bool> {
        let OrderEvent::OrderCreated(told) = told else {
            return Some(false);
        };
        let here = order.applied_here.first().and_then(|index| self.applied.get(*index));
        let stored;
        let first = match here {
            Some(applied) if applied.recorded.version == Version::FIRST => &applied.recorded.event,
            _ => {
                let message = self.first_messages.get(&order_id)?;
                stored = schema::decode(message.as_bytes(), self.default_currency).ok()?.recorded.event;
                &stored
            }
        };
        match first {
            OrderEvent::OrderCreated(first) => Some(schema::same_publication(first, told)),
            _ => Some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, Utc};
    use domain::OrderEvent;
    use domain::order::event::OrderDelivered;
    use domain::{EventId, Recorded, Version};
    use uuid::Uuid;

    use super::super::Known;
    use super::*;
    use crate::intake::{Headers, Position};

    /// The intake sets such a record aside. Should it ever let one pass, the record is still not lost.
    #[test]
    fn an_order_that_begins_with_anything_but_its_creation_is_a_dead_letter() {
        let recorded = Recorded {
            event_id: EventId(Uuid::from_u128(1)),
            order_id: OrderId(Uuid::from_u128(2)),
            version: Version::FIRST,
            occurred_at: DateTime::<Utc>::UNIX_EPOCH,
            event: OrderEvent::OrderDelivered(OrderDelivered {}),
        };
        let record = Record {
            position: Position { partition: 0, offset: 7 },
            key: None,
            payload: Some(b"{}".to_vec()),
            headers: Headers::default(),
        };
        let digest = record.digest();
        let meaning = Meaning::Event { recorded: Box::new(recorded), origin: Origin::Log };
        let mut batch = Batch::new(Known::default(), "EUR".parse().unwrap());
        batch.take(Incoming { record: record.clone(), digest, meaning });
        assert!(batch.applied.is_empty() && batch.duplicates == 0);
        let [letter] = batch.dead_letters.as_slice() else { panic!("{:?}", batch.dead_letters) };
        assert_eq!((letter.reason, &letter.record), (Reason::OutOfPlace, &record));
        assert_eq!(letter.detail, "an order cannot begin with `OrderDelivered`");
    }
}
