//! The row as the JSON document that readers get, and back.
//!
//! The document is made once, when the row is written, and served byte for byte. Amounts go through raw JSON
//! values in both directions, so no digit passes through a float.

use chrono::{DateTime, Utc};
use domain::money::InvalidMoney;
use domain::order::{Line, Status};
use domain::{Currency, CustomerId, Money, OrderId, Sku, Version};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::{Cancelled, OrderRow, Paid, Refunded, Shipped};

/// Why a stored document is not one of ours.
#[derive(Debug, Error)]
pub enum Invalid {
    /// Not the JSON that we write.
    #[error("the stored document cannot be read")]
    Json(#[from] serde_json::Error),
    /// An amount that is none.
    #[error("the stored document has an amount that is none")]
    Money(#[from] InvalidMoney),
    /// A status that this program does not know.
    #[error("the stored document has the unknown status `{0}`")]
    Status(String),
}

#[derive(Serialize, Deserialize)]
struct Document {
    order_id: OrderId,
    customer_id: CustomerId,
    status: String,
    version: Version,
    items: Vec<Item>,
    total: Box<RawValue>,
    currency: Currency,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paid: Option<PaidDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shipped: Option<ShippedDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cancelled: Option<CancelledDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refunded: Option<RefundedDocument>,
}

#[derive(Serialize, Deserialize)]
struct Item {
    sku: Sku,
    quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_price: Option<Box<RawValue>>,
}

#[derive(Serialize, Deserialize)]
struct PaidDocument {
    amount: Box<RawValue>,
    at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_reference: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct ShippedDocument {
    at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct CancelledDocument {
    at: DateTime<Utc>,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct RefundedDocument {
    amount: Box<RawValue>,
    at: DateTime<Utc>,
}

impl OrderRow {
    /// The document of this row.
    ///
    /// # Errors
    ///
    /// None for any row; a serialisation fault of the JSON library otherwise.
    pub fn to_document(&self) -> Result<String, serde_json::Error> {
        let items = self.lines.iter().map(|line| Item {
            sku: line.sku.clone(),
            quantity: line.quantity,
            unit_price: line.unit_price.map(Money::to_json_number),
        });
        serde_json::to_string(&Document {
            order_id: self.order_id,
            customer_id: self.customer_id.clone(),
            status: self.status.as_str().to_owned(),
            version: self.version,
            items: items.collect(),
            total: self.total.to_json_number(),
            currency: self.total.currency(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            paid: self.paid.as_ref().map(|paid| PaidDocument {
                amount: paid.amount.to_json_number(),
                at: paid.at,
                payment_reference: paid.payment_reference.clone(),
            }),
            shipped: self.shipped.as_ref().map(|shipped| ShippedDocument {
                at: shipped.at,
                carrier: shipped.carrier.clone(),
                tracking_number: shipped.tracking_number.clone(),
            }),
            delivered_at: self.delivered_at,
            cancelled: self
                .cancelled
                .as_ref()
                .map(|cancelled| CancelledDocument { at: cancelled.at, reason: cancelled.reason.clone() }),
            refunded: self
                .refunded
                .as_ref()
                .map(|refunded| RefundedDocument { amount: refunded.amount.to_json_number(), at: refunded.at }),
        })
    }

    /// The row of a stored document.
    ///
    /// # Errors
    ///
    /// When the document was not written by [`OrderRow::to_document`].
    pub fn from_document(text: &str) -> Result<Self, Invalid> {
        let document: Document = serde_json::from_str(text)?;
        let currency = document.currency;
        let money = |raw: Box<RawValue>| Money::parse(raw.get(), currency);
        let status = Status::parse(&document.status).ok_or(Invalid::Status(document.status))?;
        let mut lines = Vec::with_capacity(document.items.len());
        for Item { sku, quantity, unit_price } in document.items {
            lines.push(Line { sku, quantity, unit_price: unit_price.map(money).transpose()? });
        }
        let paid = match document.paid {
            Some(PaidDocument { amount, at, payment_reference }) => {
                Some(Paid { amount: money(amount)?, at, payment_reference })
            }
            None => None,
        };
        let refunded = match document.refunded {
            Some(RefundedDocument { amount, at }) => Some(Refunded { amount: money(amount)?, at }),
            None => None,
        };
        Ok(Self {
            order_id: document.order_id,
            version: document.version,
            customer_id: document.customer_id,
            status,
            lines,
            total: money(document.total)?,
            created_at: document.created_at,
            updated_at: document.updated_at,
            paid,
            shipped: document.shipped.map(|ShippedDocument { at, carrier, tracking_number }| Shipped {
                at,
                carrier,
                tracking_number,
            }),
            delivered_at: document.delivered_at,
            cancelled: document.cancelled.map(|CancelledDocument { at, reason }| Cancelled { at, reason }),
            refunded,
        })
    }
}
