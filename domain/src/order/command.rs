//! What can be asked of an order.

use chrono::{DateTime, Utc};

use crate::ids::{CustomerId, Sku};
use crate::money::Money;

/// A request to change an order. Prices and times come in as data: from the catalogue and the edge's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderCommand {
    /// Place a new order.
    Create {
        /// Who orders.
        customer_id: CustomerId,
        /// What is ordered.
        lines: Vec<DraftLine>,
        /// When it was asked.
        at: DateTime<Utc>,
    },
    /// Replace the items of an order that is not paid.
    ChangeItems {
        /// What is ordered now.
        lines: Vec<DraftLine>,
    },
    /// Take note of the payment of the whole total.
    Pay {
        /// The payment's name at whoever took it.
        payment_reference: Option<String>,
    },
    /// Hand a paid order to a carrier.
    Ship {
        /// Who carries it.
        carrier: Option<String>,
        /// The carrier's name for the parcel.
        tracking_number: Option<String>,
    },
    /// Take note of the arrival.
    Deliver,
    /// Give an order up before it ships.
    Cancel {
        /// Why, in the words of whoever asks.
        reason: String,
    },
}

/// A line as it is asked for, with the price that the catalogue knows for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftLine {
    /// What.
    pub sku: Sku,
    /// How many pieces.
    pub quantity: u32,
    /// The catalogue's price of one piece; none when it does not know the SKU.
    pub unit_price: Option<Money>,
}
