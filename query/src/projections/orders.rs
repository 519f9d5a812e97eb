//! One row per order: its document, and the state from which the next event makes the next document.

mod document;

use chrono::{DateTime, Utc};
use domain::order::event::OrderCreated;
use domain::order::{Line, Status};
use domain::{CustomerId, Money, OrderEvent, OrderId, Recorded, Version};

pub use document::Invalid;

use crate::sum::Sum;

/// Everything that is known about an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    /// Which order.
    pub order_id: OrderId,
    /// How many events are applied.
    pub version: Version,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// Where it is in its life.
    pub status: Status,
    /// What is ordered now.
    pub lines: Vec<Line>,
    /// What it costs now; its currency is the order's.
    pub total: Money,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
    /// When its last event happened.
    pub updated_at: DateTime<Utc>,
    /// The payment.
    pub paid: Option<Paid>,
    /// The shipment.
    pub shipped: Option<Shipped>,
    /// When it arrived.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Why and when it was given up.
    pub cancelled: Option<Cancelled>,
    /// What was given back.
    pub refunded: Option<Refunded>,
}

/// The payment of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// How much.
    pub amount: Money,
    /// When.
    pub at: DateTime<Utc>,
    /// Its name at whoever took it.
    pub payment_reference: Option<String>,
}

/// The shipment of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipped {
    /// When it left.
    pub at: DateTime<Utc>,
    /// Who carries it.
    pub carrier: Option<String>,
    /// The carrier's name for the parcel.
    pub tracking_number: Option<String>,
}

/// The end of an order that never shipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancelled {
    /// When.
    pub at: DateTime<Utc>,
    /// Why.
    pub reason: String,
}

/// Money given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refunded {
    /// How much.
    pub amount: Money,
    /// When.
    pub at: DateTime<Utc>,
}

impl OrderRow {
    /// Paid minus refunded.
    pub fn net_paid(&self) -> Sum {
        let paid = self.paid.as_ref().map_or(Sum::default(), |paid| Sum::from(paid.amount));
        let refunded = self.refunded.as_ref().map_or(Sum::default(), |refunded| Sum::from(refunded.amount));
        paid + -refunded
    }

    /// The row of a new order.
    pub fn created(recorded: &Recorded<OrderEvent>, event: &OrderCreated) -> Self {
        Self {
            order_id: recorded.order_id,
            version: recorded.version,
            customer_id: event.customer_id.clone(),
            status: Status::Created,
            lines: event.lines.clone(),
            total: event.total,
            created_at: event.created_at,
            updated_at: recorded.occurred_at,
            paid: None,
            shipped: None,
            delivered_at: None,
            cancelled: None,
            refunded: None,
        }
    }

    /// The row after an order's next event; none when the order begins with another event than its creation.
    pub fn next(before: Option<&Self>, recorded: &Recorded<OrderEvent>) -> Option<Self> {
        match (before, &recorded.event) {
            (Some(before), _) => Some(before.after(recorded)),
            (None, OrderEvent::OrderCreated(created)) => Some(Self::created(recorded, created)),
            (None, _) => None,
        }
    }

    /// The row after one more event. Total, like [`domain::Order`]'s own `evolve`: an event that the order's rules
    /// cannot have caused counts as a version and changes nothing else.
    #[must_use]
    pub fn after(&self, recorded: &Recorded<OrderEvent>) -> Self {
        let at = recorded.occurred_at;
        let mut row = Self { version: recorded.version, updated_at: at, ..self.clone() };
        match (&recorded.event, self.status) {
            (OrderEvent::OrderItemsChanged(changed), Status::Created)
                if changed.total.currency() == self.total.currency() =>
            {
                row.lines.clone_from(&changed.lines);
                row.total = changed.total;
            }
            (OrderEvent::OrderPaid(paid), Status::Created) if paid.amount.currency() == self.total.currency() => {
                row.status = Status::Paid;
                row.paid = Some(Paid { amount: paid.amount, at, payment_reference: paid.payment_reference.clone() });
            }
            (OrderEvent::OrderShipped(shipped), Status::Paid) => {
                row.status = Status::Shipped;
                row.shipped = Some(Shipped {
                    at,
                    carrier: shipped.carrier.clone(),
                    tracking_number: shipped.tracking_number.clone(),
                });
            }
            (OrderEvent::OrderDelivered(_), Status::Shipped) => {
                row.status = Status::Delivered;
                row.delivered_at = Some(at);
            }
            (OrderEvent::OrderCancelled(cancelled), Status::Created | Status::Paid) => {
                row.status = Status::Cancelled;
                row.cancelled = Some(Cancelled { at, reason: cancelled.reason.clone() });
            }
            (OrderEvent::OrderRefunded(refunded), Status::Cancelled)
                if self.paid.is_some()
                    && self.refunded.is_none()
                    && refunded.amount.currency() == self.total.currency() =>
            {
                row.refunded = Some(Refunded { amount: refunded.amount, at });
            }
            (
                OrderEvent::OrderCreated(_)
                | OrderEvent::OrderItemsChanged(_)
                | OrderEvent::OrderPaid(_)
                | OrderEvent::OrderShipped(_)
                | OrderEvent::OrderDelivered(_)
                | OrderEvent::OrderCancelled(_)
                | OrderEvent::OrderRefunded(_),
                _,
            ) => {}
        }
        row
    }

    /// What the order is worth to whoever counts demand: its lines, unless it is cancelled.
    pub fn wanted(&self) -> &[Line] {
        if self.status == Status::Cancelled { &[] } else { &self.lines }
    }
}

#[cfg(test)]
mod tests;
