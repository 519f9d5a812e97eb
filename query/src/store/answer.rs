//! What a store answers, whichever it is.

use bytes::Bytes;
use domain::order::Status;
use domain::{Currency, CustomerId, OrderId, Sku, Version};

use crate::intake::{Digest, Headers, Position};
use crate::live::place::Anchor;
use crate::projections::cancellations::Reason;
use crate::sum::Sum;

/// An order as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// How many of its events are applied.
    pub version: Version,
    /// The stored document.
    pub document: Bytes,
    /// Why and from which version on its events wait, if any do.
    pub waiting: Option<Waiting>,
}

/// Events that are known and not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The stable name of the cause.
    pub cause: String,
    /// The first waiting version.
    pub version: Version,
}

/// How far an order is, for a reader who wants a version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prospect {
    /// How many of its events are applied; zero when it is not known.
    pub reached: Version,
    /// What keeps it from that version however long one waits, if anything does: its cause is `fork` or `newer`.
    pub stopped: Option<Waiting>,
}

impl Prospect {
    /// Whether waiting for `wanted` is over: it is there, or will not come.
    pub fn is_settled(&self, wanted: Version) -> bool {
        self.reached >= wanted || self.stopped.is_some()
    }
}

/// An event as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order's history.
    pub version: Version,
    /// Its identity.
    pub event_id: uuid::Uuid,
    /// Its type.
    pub event_type: String,
    /// When it happened, in microseconds.
    pub occurred_at_micros: i64,
    /// The exact message.
    pub message: String,
    /// Who caused it.
    pub actor: Option<String>,
    /// The conversation it belongs to.
    pub correlation_id: Option<String>,
    /// What caused it.
    pub causation_id: Option<String>,
}

/// How a list is sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Sort {
    /// Newest first.
    #[default]
    Newest,
    /// Oldest first.
    Oldest,
    /// Most expensive first, within a currency.
    Dearest,
    /// Least expensive first, within a currency.
    Cheapest,
}

impl Sort {
    /// Whether the time of creation sorts, and not the total.
    pub fn is_by_creation(self) -> bool {
        matches!(self, Self::Newest | Self::Oldest)
    }

    /// Whether the largest key comes first.
    pub fn is_descending(self) -> bool {
        matches!(self, Self::Newest | Self::Dearest)
    }
}

/// Where in a list a page begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Page {
    /// How the list is sorted.
    pub sort: Sort,
    /// After this key: what sorts, and the order.
    pub after: Option<(i64, OrderId)>,
}

/// Which orders a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct ListFilter {
    /// In this status.
    pub status: Option<Status>,
    /// Of this customer.
    pub customer_id: Option<CustomerId>,
    /// With this product among its items.
    pub sku: Option<Sku>,
    /// Placed at or after this time, in microseconds.
    pub created_from_micros: Option<i64>,
    /// Placed at or before this time, in microseconds.
    pub created_to_micros: Option<i64>,
    /// In this currency.
    pub currency: Option<Currency>,
    /// Costing at least this much, in minor units.
    pub min_total_minor: Option<i64>,
    /// Costing at most this much, in minor units.
    pub max_total_minor: Option<i64>,
}

/// A page of a list of orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The stored documents, as a JSON array.
    pub documents: Bytes,
    /// Where the next page begins, if there is one: after this key, which is what sorts, and the order.
    pub next: Option<(i64, OrderId)>,
}

/// A customer's totals in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerTotals {
    /// Who.
    pub customer_id: CustomerId,
    /// In which currency.
    pub currency: Currency,
    /// Orders placed.
    pub orders: i64,
    /// Orders given up.
    pub cancellations: i64,
    /// Paid minus refunded.
    pub spend: Sum,
    /// When the newest order was placed, in microseconds, and which it is.
    pub last_order: (i64, OrderId),
}

/// A day's totals in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayTotals {
    /// Days since 1970-01-01.
    pub day: i64,
    /// In which currency.
    pub currency: Currency,
    /// Orders placed.
    pub orders: i64,
    /// Orders given up.
    pub cancellations: i64,
    /// Payments minus refunds.
    pub revenue: Sum,
}

/// The demand for one SKU in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductTotals {
    /// What.
    pub sku: Sku,
    /// In which currency.
    pub currency: Currency,
    /// Pieces wanted.
    pub units: i64,
    /// Price times pieces, where the price is known.
    pub revenue: Sum,
}

/// Which cancellations a list shows.
#[derive(Debug, Clone)]
pub struct CancellationFilter {
    /// Of this customer.
    pub customer_id: Option<CustomerId>,
    /// On this day or later, in days since 1970-01-01.
    pub from_day: i64,
    /// On this day or earlier.
    pub to_day: i64,
}

/// How many orders a customer gave up on a day, for a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancellationTotals {
    /// Days since 1970-01-01, who, and why.
    pub key: (i64, CustomerId, Reason),
    /// Orders given up.
    pub orders: i64,
}

/// What was not applied: how much, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Dead letters, counted up to [`BACKLOG_COUNT_MAX`].
    pub dead_letters: i64,
    /// When the oldest was set aside, in microseconds.
    pub oldest_letter_micros: Option<i64>,
    /// Waiting events, counted up to [`BACKLOG_COUNT_MAX`].
    pub parked: i64,
    /// Since when the first waits, in microseconds.
    pub oldest_parked_micros: Option<i64>,
}

/// The most rows that are counted for a [`Backlog`]; beyond it the number is the message.
pub const BACKLOG_COUNT_MAX: u32 = 100_000;

/// A dead letter as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedLetter {
    /// Where it stood.
    pub topic: String,
    /// Where it stood.
    pub position: Position,
    /// Of its value.
    pub digest: Digest,
    /// Its key, as far as it is text.
    pub key: Option<String>,
    /// Its value, as far as it is text.
    pub payload: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// The stable code of the reason.
    pub reason: String,
    /// The reason in words.
    pub detail: String,
    /// When it was set aside, in microseconds.
    pub seen_at_micros: i64,
    /// When and why an operator discarded it, if one did.
    pub discarded: Option<Discarded>,
}

/// That an operator discarded something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discarded {
    /// When, in microseconds.
    pub at_micros: i64,
    /// Why.
    pub reason: String,
}

/// A waiting event as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedParked {
    /// Whose event.
    pub order_id: OrderId,
    /// Which of its events.
    pub version: Version,
    /// Of the message.
    pub digest: Digest,
    /// Why it waits.
    pub cause: String,
    /// Where it stood.
    pub topic: String,
    /// Where it stood.
    pub position: Position,
    /// The exact text.
    pub message: String,
    /// Its headers.
    pub headers: Headers,
    /// Since when it waits, in microseconds.
    pub parked_at_micros: i64,
    /// When and why an operator discarded it, if one did.
    pub discarded: Option<Discarded>,
}

/// A change as a stream tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// In the order of application; only on this store.
    pub seq: i64,
    /// Where it stands, and the id of its event.
    pub at: Anchor,
    /// Whose event.
    pub order_id: OrderId,
    /// Which of its events.
    pub version: Version,
    /// Of the order, with this event applied.
    pub status: Status,
    /// Whose order.
    pub customer_id: CustomerId,
    /// The event's type.
    pub event_type: String,
    /// The exact message.
    pub message: String,
}

/// The last change of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastChange {
    /// In the order of application; only on this store.
    pub seq: i64,
    /// Where it stands, and the id of its event.
    pub at: Anchor,
}
