//! What can have happened to an order: the published language of this service.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{CustomerId, Sku};
use crate::money::Money;

/// A fact in an order's life. The names are those on the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderEvent {
    /// The order was placed.
    OrderCreated(OrderCreated),
    /// Its items were replaced.
    OrderItemsChanged(OrderItemsChanged),
    /// It was paid in full.
    OrderPaid(OrderPaid),
    /// It left.
    OrderShipped(OrderShipped),
    /// It arrived.
    OrderDelivered(OrderDelivered),
    /// It was given up.
    OrderCancelled(OrderCancelled),
    /// What was paid for it was given back.
    OrderRefunded(OrderRefunded),
}

/// One line of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// What.
    pub sku: Sku,
    /// How many pieces.
    pub quantity: u32,
    /// The price of one piece; none in facts of schema version 1, which did not tell it.
    pub unit_price: Option<Money>,
}

/// The order was placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderCreated {
    /// Who ordered.
    pub customer_id: CustomerId,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// What it costs.
    pub total: Money,
    /// When it was placed.
    pub created_at: DateTime<Utc>,
}

/// The items were replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderItemsChanged {
    /// What is ordered now.
    pub lines: Vec<Line>,
    /// What it costs now.
    pub total: Money,
}

/// The total was paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderPaid {
    /// How much was paid: the total.
    pub amount: Money,
    /// The payment's name at whoever took it.
    pub payment_reference: Option<String>,
}

/// The order left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderShipped {
    /// Who carries it.
    pub carrier: Option<String>,
    /// The carrier's name for the parcel.
    pub tracking_number: Option<String>,
}

/// The order arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderDelivered {}

/// The order was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderCancelled {
    /// Why.
    pub reason: String,
}

/// What was paid was given back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRefunded {
    /// How much: all that was paid.
    pub amount: Money,
}

impl OrderEvent {
    /// The name on the topic and in the log.
    pub fn event_type(&self) -> &'static str {
        match self {
            Self::OrderCreated(_) => "OrderCreated",
            Self::OrderItemsChanged(_) => "OrderItemsChanged",
            Self::OrderPaid(_) => "OrderPaid",
            Self::OrderShipped(_) => "OrderShipped",
            Self::OrderDelivered(_) => "OrderDelivered",
            Self::OrderCancelled(_) => "OrderCancelled",
            Self::OrderRefunded(_) => "OrderRefunded",
        }
    }

    /// The schema version that this service writes for this type.
    pub fn schema_version(&self) -> u16 {
        match self {
            Self::OrderCreated(_) => 2,
            Self::OrderItemsChanged(_)
            | Self::OrderPaid(_)
            | Self::OrderShipped(_)
            | Self::OrderDelivered(_)
            | Self::OrderCancelled(_)
            | Self::OrderRefunded(_) => 1,
        }
    }
}
