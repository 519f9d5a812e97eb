//! The JSON shapes, one per (type, version). A shape is a promise: it is added to, never edited.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::object;
use crate::ids::{CustomerId, Sku};
use crate::money::{Currency, Money};
use crate::order::event::{
    Line, OrderCancelled, OrderCreated, OrderDelivered, OrderEvent, OrderItemsChanged, OrderPaid, OrderRefunded,
    OrderShipped,
};
use crate::order::upcast;
use crate::time::Timestamp;

/// Why the part of a message that depends on its type was not understood.
pub(super) enum BodyError {
    Newer,
    Garbage(String),
}

impl<E: std::error::Error> From<E> for BodyError {
    fn from(error: E) -> Self {
        Self::Garbage(error.to_string())
    }
}

#[derive(Deserialize)]
pub(crate) struct ItemV1 {
    pub(crate) sku: Sku,
    pub(crate) quantity: u32,
}

#[derive(Deserialize)]
pub(crate) struct OrderCreatedV1<'a> {
    pub(crate) customer_id: CustomerId,
    #[serde(deserialize_with = "object::list")]
    pub(crate) items: Vec<ItemV1>,
    #[serde(borrow)]
    pub(crate) total: &'a RawValue,
    pub(crate) created_at: Timestamp,
}

#[derive(Deserialize)]
pub(crate) struct ItemV2<'a> {
    pub(crate) sku: Sku,
    pub(crate) quantity: u32,
    #[serde(borrow)]
    pub(crate) unit_price: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(crate) struct OrderCreatedV2<'a> {
    pub(crate) customer_id: CustomerId,
    #[serde(borrow, deserialize_with = "object::list")]
    pub(crate) items: Vec<ItemV2<'a>>,
    #[serde(borrow)]
    pub(crate) total: &'a RawValue,
    pub(crate) created_at: Timestamp,
    pub(crate) currency: Currency,
}

#[derive(Deserialize)]
struct ItemsChangedV1<'a> {
    #[serde(borrow, deserialize_with = "object::list")]
    items: Vec<ItemV2<'a>>,
    #[serde(borrow)]
    total: &'a RawValue,
    currency: Currency,
}

#[derive(Deserialize)]
struct AmountV1<'a> {
    #[serde(borrow)]
    amount: &'a RawValue,
    currency: Currency,
    payment_reference: Option<String>,
}

#[derive(Deserialize)]
struct ShippedV1 {
    carrier: Option<String>,
    tracking_number: Option<String>,
}

#[derive(Deserialize)]
struct CancelledV1 {
    reason: String,
}

pub(super) fn decode_body(
    event_type: &str,
    schema_version: u16,
    text: &str,
    default_currency: Currency,
) -> Result<OrderEvent, BodyError> {
    Ok(match (event_type, schema_version) {
        ("OrderCreated", 1) => {
            let v1: OrderCreatedV1<'_> = object::read(text)?;
            created(upcast::order_created_v1_to_v2(v1, default_currency))?
        }
        ("OrderCreated", 2) => created(object::read(text)?)?,
        ("OrderItemsChanged", 1) => {
            let body: ItemsChangedV1<'_> = object::read(text)?;
            let (lines, total) = priced(body.items, body.total, body.currency)?;
            OrderEvent::OrderItemsChanged(OrderItemsChanged { lines, total })
        }
        ("OrderPaid", 1) => {
            let body: AmountV1<'_> = object::read(text)?;
            let amount = Money::parse(body.amount.get(), body.currency)?;
            OrderEvent::OrderPaid(OrderPaid { amount, payment_reference: body.payment_reference })
        }
        ("OrderShipped", 1) => {
            let ShippedV1 { carrier, tracking_number } = object::read(text)?;
            OrderEvent::OrderShipped(OrderShipped { carrier, tracking_number })
        }
        ("OrderDelivered", 1) => OrderEvent::OrderDelivered(OrderDelivered {}),
        ("OrderCancelled", 1) => {
            let CancelledV1 { reason } = object::read(text)?;
            OrderEvent::OrderCancelled(OrderCancelled { reason })
        }
        ("OrderRefunded", 1) => {
            let body: AmountV1<'_> = object::read(text)?;
            OrderEvent::OrderRefunded(OrderRefunded { amount: Money::parse(body.amount.get(), body.currency)? })
        }
        _ => return Err(BodyError::Newer),
    })
}

fn created(v2: OrderCreatedV2<'_>) -> Result<OrderEvent, BodyError> {
    let (lines, total) = priced(v2.items, v2.total, v2.currency)?;
    let OrderCreatedV2 { customer_id, created_at, .. } = v2;
    Ok(OrderEvent::OrderCreated(OrderCreated { customer_id, lines, total, created_at: created_at.utc() }))
}

fn priced(items: Vec<ItemV2<'_>>, total: &RawValue, currency: Currency) -> Result<(Vec<Line>, Money), BodyError> {
    let total = Money::parse(total.get(), currency)?;
    let mut lines = Vec::with_capacity(items.len());
    for ItemV2 { sku, quantity, unit_price } in items {
        if quantity == 0 {
            return Err(BodyError::Garbage(format!("the quantity of `{sku}` is zero")));
        }
        let unit_price = unit_price.map(|price| Money::parse(price.get(), currency)).transpose()?;
        lines.push(Line { sku, quantity, unit_price });
    }
    Ok((lines, total))
}

#[derive(Serialize)]
struct ItemOut<'a> {
    sku: &'a Sku,
    quantity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit_price: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct CreatedOut<'a> {
    customer_id: &'a CustomerId,
    items: Vec<ItemOut<'a>>,
    total: Box<RawValue>,
    created_at: DateTime<Utc>,
    currency: Currency,
}

#[derive(Serialize)]
struct ItemsChangedOut<'a> {
    items: Vec<ItemOut<'a>>,
    total: Box<RawValue>,
    currency: Currency,
}

#[derive(Serialize)]
struct AmountOut<'a> {
    amount: Box<RawValue>,
    currency: Currency,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_reference: Option<&'a str>,
}

#[derive(Serialize)]
struct ShippedOut<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    carrier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking_number: Option<&'a str>,
}

#[derive(Serialize)]
struct CancelledOut<'a> {
    reason: &'a str,
}

pub(super) fn encode_body(event: &OrderEvent) -> Result<String, serde_json::Error> {
    match event {
        OrderEvent::OrderCreated(created) => serde_json::to_string(&CreatedOut {
            customer_id: &created.customer_id,
            items: items_out(&created.lines),
            total: created.total.to_json_number(),
            created_at: created.created_at,
            currency: created.total.currency(),
        }),
        OrderEvent::OrderItemsChanged(changed) => serde_json::to_string(&ItemsChangedOut {
            items: items_out(&changed.lines),
            total: changed.total.to_json_number(),
            currency: changed.total.currency(),
        }),
        OrderEvent::OrderPaid(paid) => encode_amount(paid.amount, paid.payment_reference.as_deref()),
        OrderEvent::OrderShipped(shipped) => serde_json::to_string(&ShippedOut {
            carrier: shipped.carrier.as_deref(),
            tracking_number: shipped.tracking_number.as_deref(),
        }),
        OrderEvent::OrderDelivered(OrderDelivered {}) => Ok("{}".to_owned()),
        OrderEvent::OrderCancelled(cancelled) => serde_json::to_string(&CancelledOut { reason: &cancelled.reason }),
        OrderEvent::OrderRefunded(refunded) => encode_amount(refunded.amount, None),
    }
}

fn encode_amount(amount: Money, payment_reference: Option<&str>) -> Result<String, serde_json::Error> {
    serde_json::to_string(&AmountOut {
        amount: amount.to_json_number(),
        currency: amount.currency(),
        payment_reference,
    })
}

fn items_out(lines: &[Line]) -> Vec<ItemOut<'_>> {
    lines
        .iter()
        .map(|line| ItemOut {
            sku: &line.sku,
            quantity: line.quantity,
            unit_price: line.unit_price.map(Money::to_json_number),
        })
        .collect()
}
