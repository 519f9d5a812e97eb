//! A batch of records, folded in memory: what is applied, what waits, what is set aside.
//!
//! The projector loads what [`Batch`] asks about, feeds the records in order, and writes what comes out. Nothing here
//! knows a database, so the same records over the same rows always come out the same.

mod known;

mod judge;

mod again;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::{Currency, OrderEvent, OrderId, Recorded, Version};

use crate::dead_letter::DeadLetter;
use crate::gate::Cause;
use crate::intake::{Digest, Incoming, Position, Record};
use crate::live::place::Place;
use crate::parked::Parked;
use crate::projection::Change;
use crate::projections::orders::OrderRow;

use judge::{Fate, Judged};
pub use known::Known;

/// An applied event.
#[derive(Debug)]
pub struct Applied {
    /// What happened.
    pub recorded: Box<Recorded<OrderEvent>>,
    /// The record that brought it.
    pub record: Record,
    /// Of its value.
    pub digest: Digest,
    /// In which partition's changes it is told.
    pub partition: i32,
    /// Where it is told there.
    pub place: Place,
    /// The order before.
    pub before: Option<Arc<OrderRow>>,
    /// The order after.
    pub after: Arc<OrderRow>,
}

impl Applied {
    /// What the projections see.
    pub fn change(&self) -> Change<'_> {
        Change { recorded: &self.recorded, before: self.before.as_deref(), after: &self.after }
    }
}

/// Names a waiting event.
pub type ParkedKey = (OrderId, Version, Digest);

#[derive(Debug)]
struct Waiting {
    parked: Parked,
    stored: bool,
    changed: bool,
}

#[derive(Debug, Default)]
struct Order {
    row: Option<Arc<OrderRow>>,
    changed: bool,
    /// In the order of (version, digest).
    waiting: Vec<Waiting>,
    /// What an operator does not want applied.
    discarded: Vec<(Version, Digest)>,
    /// Where in the list of the batch the events are that were applied here.
    applied_here: Vec<usize>,
}

impl Order {
    fn last(&self) -> Version {
        self.row.as_ref().map_or(Version::default(), |row| row.version)
    }

    fn waiting(&self) -> Vec<(Version, Digest, Cause)> {
        self.waiting.iter().map(|Waiting { parked, .. }| (parked.version, parked.digest, parked.cause)).collect()
    }

    fn park(&mut self, waiting: Waiting) {
        let key = (waiting.parked.version, waiting.parked.digest);
        let at = self.waiting.partition_point(|Waiting { parked, .. }| (parked.version, parked.digest) < key);
        self.waiting.insert(at, waiting);
    }
}

/// A batch in the making, and what came of it.
#[derive(Debug)]
pub struct Batch {
    default_currency: Currency,
    orders: BTreeMap<OrderId, Order>,
    digests: BTreeMap<(OrderId, Version), Digest>,
    first_messages: BTreeMap<OrderId, String>,
    discarded_letters: BTreeSet<(Position, Digest)>,
    /// Where the next change is told while a record is taken.
    taking: Option<(i32, Place)>,
    /// Where the next change of a partition is told that no record brings about.
    between: BTreeMap<i32, Place>,
    /// Whether streams are told: what the whole log tells has no place among the changes.
    pub streamed: bool,
    /// The applied events, in the order of application.
    pub applied: Vec<Applied>,
    /// The records set aside.
    pub dead_letters: Vec<DeadLetter>,
    /// Waiting events of the store that wait no more.
    pub unparked: Vec<ParkedKey>,
    /// Events that were applied, or waited, already.
    pub duplicates: u64,
    /// Events that contradict another one and were not known to.
    pub forks: Vec<ParkedKey>,
}

impl Batch {
    /// A batch over what is known. `default_currency` is that of messages that name none.
    pub fn new(known: Known, default_currency: Currency) -> Self {
        let mut orders: BTreeMap<OrderId, Order> = BTreeMap::new();
        for row in known.rows {
            let order = orders.entry(row.order_id).or_default();
            order.row = Some(Arc::new(row));
        }
        for parked in known.parked {
            let order = orders.entry(parked.order_id).or_default();
            order.park(Waiting { parked, stored: true, changed: false });
        }
        for (order_id, version, digest) in known.discarded {
            orders.entry(order_id).or_default().discarded.push((version, digest));
        }
        Self {
            default_currency,
            orders,
            digests: known.digests,
            first_messages: known.first_messages,
            discarded_letters: known.discarded_letters,
            taking: None,
            between: BTreeMap::new(),
            streamed: true,
            applied: Vec::new(),
            dead_letters: Vec::new(),
            unparked: Vec::new(),
            duplicates: 0,
            forks: Vec::new(),
        }
    }

    /// Tells where changes go that no record brings about: behind what each partition has.
    pub fn continue_after(&mut self, next: BTreeMap<i32, Place>) {
        self.between = next;
    }

    /// Takes the next record of the topic, and then whatever waited for it.
    pub fn take(&mut self, incoming: Incoming) {
        let position = incoming.record.position;
        if self.discarded_letters.contains(&(position, incoming.digest)) {
            self.duplicates += 1;
            return;
        }
        self.taking = Some((position.partition, Place::of_record(position.offset)));
        self.take_besides(incoming);
        self.taking = None;
    }

    /// Takes a record that is not the topic's next one, and then whatever waited for it.
    pub fn take_besides(&mut self, incoming: Incoming) {
        let judged = self.judge(incoming);
        let moves = judged.moves();
        self.settle(judged);
        if let Some(order_id) = moves {
            self.heal(order_id);
        }
    }

    /// Tries the waiting events of an order, from the first on, until one has to wait on.
    pub fn heal(&mut self, order_id: OrderId) {
        let mut goes_on = true;
        while goes_on && let Some(waiting) = self.next_waiting(order_id) {
            let judged = self.judge(Incoming::read(waiting.parked.to_record(), self.default_currency));
            goes_on = self.settle_waiting(judged, waiting);
        }
    }

    /// What the projections see, in the order of application.
    pub fn changes(&self) -> impl Iterator<Item = Change<'_>> {
        self.applied.iter().map(Applied::change)
    }

    /// The rows to write, by id.
    pub fn changed_orders(&self) -> impl Iterator<Item = &OrderRow> {
        self.orders.values().filter(|order| order.changed).filter_map(|order| order.row.as_deref())
    }

    /// The waiting events to write, by order and version.
    pub fn newly_parked(&self) -> impl Iterator<Item = &Parked> {
        let waiting = self.orders.values().flat_map(|order| &order.waiting);
        waiting.filter(|waiting| waiting.changed || !waiting.stored).map(|waiting| &waiting.parked)
    }

    fn next_waiting(&mut self, order_id: OrderId) -> Option<Waiting> {
        let order = self.orders.get_mut(&order_id)?;
        let forked = order.waiting.iter().any(|waiting| waiting.parked.cause == Cause::Fork);
        let due = order.waiting.first().is_some_and(|waiting| waiting.parked.version <= order.last().next());
        if forked || !due { None } else { Some(order.waiting.remove(0)) }
    }

    /// Carries out what was decided of a record. Every record ends in one of these lists, or was in one before.
    fn settle(&mut self, Judged { record, digest, fate }: Judged) {
        match fate {
            Fate::Apply { recorded, after } => self.apply(record, digest, recorded, *after),
            Fate::Duplicate => self.duplicates += 1,
            Fate::Park { order_id, version, cause } => self.park(&record, digest, (order_id, version), cause),
            Fate::SetAside { reason, detail } => {
                self.dead_letters.push(DeadLetter { record, digest, reason, detail });
            }
        }
    }

    /// The same for an event that waited. False when it has to wait on.
    fn settle_waiting(&mut self, judged: Judged, mut waiting: Waiting) -> bool {
        let order_id = waiting.parked.order_id;
        if let Fate::Park { cause, .. } = judged.fate {
            waiting.changed |= waiting.parked.cause != cause;
            waiting.parked.cause = cause;
            self.orders.entry(order_id).or_default().park(waiting);
            return false;
        }
        if waiting.stored {
            self.unparked.push((order_id, waiting.parked.version, waiting.parked.digest));
        }
        self.settle(judged);
        true
    }

    fn apply(&mut self, record: Record, digest: Digest, recorded: Box<Recorded<OrderEvent>>, after: OrderRow) {
        let after = Arc::new(after);
        let order = self.orders.entry(recorded.order_id).or_default();
        let before = order.row.replace(Arc::clone(&after));
        order.changed = true;
        order.applied_here.push(self.applied.len());
        let (partition, place) = self.next_place(record.position.partition);
        self.applied.push(Applied { recorded, record, digest, partition, place, before, after });
    }

    /// Where the next change is told; `partition` is that of the event's own record.
    fn next_place(&mut self, partition: i32) -> (i32, Place) {
        if let Some((partition, place)) = &mut self.taking {
            let here = *place;
            *place = here.after();
            return (*partition, here);
        }
        let place = self.between.entry(partition).or_insert(Place::START);
        let here = *place;
        *place = here.after();
        (partition, here)
    }

    fn park(&mut self, record: &Record, digest: Digest, (order_id, version): (OrderId, Version), cause: Cause) {
        if cause == Cause::Fork {
            self.forks.push((order_id, version, digest));
        }
        let parked = Parked {
            order_id,
            version,
            digest,
            cause,
            position: record.position,
            message: record.text().to_owned(),
            headers: record.headers.clone(),
        };
        self.orders.entry(order_id).or_default().park(Waiting { parked, stored: false, changed: false });
    }
}
