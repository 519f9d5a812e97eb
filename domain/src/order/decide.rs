//! One function per command: the rules of an order.

use std::collections::BTreeSet;

use super::event::{
    OrderCancelled, OrderCreated, OrderDelivered, OrderItemsChanged, OrderPaid, OrderRefunded, OrderShipped,
};
use super::{Basket, DraftLine, Line, Order, OrderCommand, OrderEvent, Rejection};
use crate::money::Money;

/// The most lines of an order; keeps an event far below its limit of bytes.
pub const ITEMS_MAX: usize = 200;
/// The most pieces of one line.
pub const QUANTITY_MAX: u32 = 1_000_000;

pub(super) fn decide(order: &Order, command: OrderCommand) -> Result<Vec<OrderEvent>, Rejection> {
    match command {
        OrderCommand::Create { customer_id, lines, at } => {
            if *order != Order::Absent {
                return Err(Rejection::OrderAlreadyExists);
            }
            let (lines, total) = price(lines)?;
            let created = OrderCreated { customer_id, lines, total, created_at: at };
            Ok(vec![OrderEvent::OrderCreated(created)])
        }
        OrderCommand::ChangeItems { lines } => change_items(order, lines),
        OrderCommand::Pay { payment_reference } => pay(order, payment_reference),
        OrderCommand::Ship { carrier, tracking_number } => ship(order, carrier, tracking_number),
        OrderCommand::Deliver => deliver(order),
        OrderCommand::Cancel { reason } => cancel(order, &reason),
    }
}

/// Replacing items by the same items changes nothing: the request may be repeated freely.
fn change_items(order: &Order, lines: Vec<DraftLine>) -> Result<Vec<OrderEvent>, Rejection> {
    match order {
        Order::Created(basket) => {
            let (lines, total) = price(lines)?;
            if lines == basket.lines && total == basket.total {
                return Ok(Vec::new());
            }
            Ok(vec![OrderEvent::OrderItemsChanged(OrderItemsChanged { lines, total })])
        }
        Order::Absent => Err(Rejection::UnknownOrder),
        Order::Paid(_) | Order::Shipped(_) | Order::Delivered(_) => Err(Rejection::ItemsFrozen),
        Order::Cancelled(_) => Err(Rejection::AlreadyCancelled),
    }
}

fn pay(order: &Order, payment_reference: Option<String>) -> Result<Vec<OrderEvent>, Rejection> {
    match order {
        Order::Created(basket) => {
            Ok(vec![OrderEvent::OrderPaid(OrderPaid { amount: basket.total, payment_reference })])
        }
        Order::Absent => Err(Rejection::UnknownOrder),
        Order::Paid(_) | Order::Shipped(_) | Order::Delivered(_) => Err(Rejection::AlreadyPaid),
        Order::Cancelled(_) => Err(Rejection::AlreadyCancelled),
    }
}

fn ship(order: &Order, carrier: Option<String>, tracking_number: Option<String>) -> Result<Vec<OrderEvent>, Rejection> {
    match order {
        Order::Paid(_) => Ok(vec![OrderEvent::OrderShipped(OrderShipped { carrier, tracking_number })]),
        Order::Absent => Err(Rejection::UnknownOrder),
        Order::Created(_) => Err(Rejection::NotPaid),
        Order::Shipped(_) | Order::Delivered(_) => Err(Rejection::AlreadyShipped),
        Order::Cancelled(_) => Err(Rejection::AlreadyCancelled),
    }
}

fn deliver(order: &Order) -> Result<Vec<OrderEvent>, Rejection> {
    match order {
        Order::Shipped(_) => Ok(vec![OrderEvent::OrderDelivered(OrderDelivered {})]),
        Order::Absent => Err(Rejection::UnknownOrder),
        Order::Created(_) | Order::Paid(_) => Err(Rejection::NotShipped),
        Order::Delivered(_) => Err(Rejection::AlreadyDelivered),
        Order::Cancelled(_) => Err(Rejection::AlreadyCancelled),
    }
}

/// What was paid is given back in the same breath, so no state lies between the two facts.
fn cancel(order: &Order, reason: &str) -> Result<Vec<OrderEvent>, Rejection> {
    let cancelled = OrderEvent::OrderCancelled(OrderCancelled { reason: reason.to_owned() });
    match order {
        Order::Created(_) => Ok(vec![cancelled]),
        Order::Paid(Basket { total, .. }) => {
            Ok(vec![cancelled, OrderEvent::OrderRefunded(OrderRefunded { amount: *total })])
        }
        Order::Absent => Err(Rejection::UnknownOrder),
        Order::Shipped(_) | Order::Delivered(_) => Err(Rejection::NotCancellable),
        Order::Cancelled(_) => Err(Rejection::AlreadyCancelled),
    }
}

/// Checks the lines and adds them up, exactly.
fn price(drafts: Vec<DraftLine>) -> Result<(Vec<Line>, Money), Rejection> {
    if drafts.is_empty() {
        return Err(Rejection::EmptyOrder);
    }
    if drafts.len() > ITEMS_MAX {
        return Err(Rejection::TooManyItems { items: drafts.len(), items_max: ITEMS_MAX });
    }
    let mut seen = BTreeSet::new();
    let mut total: Option<Money> = None;
    let mut lines = Vec::with_capacity(drafts.len());
    for (index, DraftLine { sku, quantity, unit_price }) in drafts.into_iter().enumerate() {
        if quantity == 0 || quantity > QUANTITY_MAX {
            return Err(Rejection::InvalidQuantity { quantity, quantity_max: QUANTITY_MAX, index });
        }
        if !seen.insert(sku.clone()) {
            return Err(Rejection::DuplicateSku { sku, index });
        }
        let Some(unit_price) = unit_price else {
            return Err(Rejection::UnknownSku { sku, index });
        };
        let so_far = total.unwrap_or(Money::zero(unit_price.currency()));
        if so_far.currency() != unit_price.currency() {
            return Err(Rejection::MixedCurrencies);
        }
        let line_total = unit_price.checked_mul(quantity).ok_or(Rejection::AmountOutOfRange)?;
        total = Some(so_far.checked_add(line_total).ok_or(Rejection::AmountOutOfRange)?);
        lines.push(Line { sku, quantity, unit_price: Some(unit_price) });
    }
    total.map(|total| (lines, total)).ok_or(Rejection::EmptyOrder)
}
