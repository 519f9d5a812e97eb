//! The rules of an order: given some events, when a command comes, then these follow.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use chrono::DateTime;
use domain::order::decide::{ITEMS_MAX, QUANTITY_MAX};
use domain::order::event::{
    Line, OrderCancelled, OrderCreated, OrderDelivered, OrderItemsChanged, OrderPaid, OrderRefunded, OrderShipped,
};
use domain::order::{Basket, DraftLine};
use domain::spec::given;
use domain::{Money, Order, OrderCommand, OrderEvent, Rejection};

fn usd(minor: i64) -> Money {
    Money::from_minor(minor, "USD".parse().unwrap()).unwrap()
}

fn draft(sku: &str, quantity: u32, minor: i64) -> DraftLine {
    DraftLine { sku: sku.parse().unwrap(), quantity, unit_price: Some(usd(minor)) }
}

fn two_lines() -> Vec<DraftLine> {
    vec![draft("prod-1", 2, 1500), draft("prod-2", 1, 1250)]
}

fn lines(drafts: Vec<DraftLine>) -> Vec<Line> {
    drafts
        .into_iter()
        .map(|draft| Line { sku: draft.sku, quantity: draft.quantity, unit_price: draft.unit_price })
        .collect()
}

fn create(drafts: Vec<DraftLine>) -> OrderCommand {
    OrderCommand::Create { customer_id: "customer-1".parse().unwrap(), lines: drafts, at: DateTime::UNIX_EPOCH }
}

fn created() -> OrderEvent {
    OrderEvent::OrderCreated(OrderCreated {
        customer_id: "customer-1".parse().unwrap(),
        lines: lines(two_lines()),
        total: usd(4250),
        created_at: DateTime::UNIX_EPOCH,
    })
}

fn paid() -> OrderEvent {
    OrderEvent::OrderPaid(OrderPaid { amount: usd(4250), payment_reference: None })
}

fn shipped() -> OrderEvent {
    OrderEvent::OrderShipped(OrderShipped { carrier: None, tracking_number: None })
}

fn delivered() -> OrderEvent {
    OrderEvent::OrderDelivered(OrderDelivered {})
}

fn cancelled() -> OrderEvent {
    OrderEvent::OrderCancelled(OrderCancelled { reason: "late".to_owned() })
}

fn refunded() -> OrderEvent {
    OrderEvent::OrderRefunded(OrderRefunded { amount: usd(4250) })
}

const PAY: OrderCommand = OrderCommand::Pay { payment_reference: None };
const SHIP: OrderCommand = OrderCommand::Ship { carrier: None, tracking_number: None };
const DELIVER: OrderCommand = OrderCommand::Deliver;

fn cancel() -> OrderCommand {
    OrderCommand::Cancel { reason: "late".to_owned() }
}

fn change_items(drafts: Vec<DraftLine>) -> OrderCommand {
    OrderCommand::ChangeItems { lines: drafts }
}

#[test]
fn an_order_is_placed_at_the_catalogues_prices() {
    given::<Order>([]).when(create(two_lines())).then([created()]);
}

#[test]
fn an_order_is_placed_once() {
    given::<Order>([created()]).when(create(two_lines())).then_rejected(Rejection::OrderAlreadyExists);
}

#[test]
fn items_are_checked() {
    let rejected = |drafts: Vec<DraftLine>, rejection: Rejection| {
        given::<Order>([]).when(create(drafts.clone())).then_rejected(rejection.clone());
        given::<Order>([created()]).when(change_items(drafts)).then_rejected(rejection);
    };
    rejected(vec![], Rejection::EmptyOrder);
    rejected(
        vec![draft("a", 1, 1), draft("b", 0, 1)],
        Rejection::InvalidQuantity { quantity: 0, quantity_max: QUANTITY_MAX, index: 1 },
    );
    rejected(
        vec![draft("a", QUANTITY_MAX + 1, 1)],
        Rejection::InvalidQuantity { quantity: QUANTITY_MAX + 1, quantity_max: QUANTITY_MAX, index: 0 },
    );
    rejected(vec![draft("a", 1, 1), draft("a", 1, 1)], Rejection::DuplicateSku { sku: "a".parse().unwrap(), index: 1 });
    let unpriced = DraftLine { unit_price: None, ..draft("a", 1, 1) };
    rejected(vec![unpriced], Rejection::UnknownSku { sku: "a".parse().unwrap(), index: 0 });
    let euro = Money::from_minor(1, "EUR".parse().unwrap()).unwrap();
    let foreign = DraftLine { unit_price: Some(euro), ..draft("b", 1, 1) };
    rejected(vec![draft("a", 1, 1), foreign], Rejection::MixedCurrencies);
    rejected(vec![draft("a", 2, i64::MAX)], Rejection::AmountOutOfRange);
    rejected(vec![draft("a", 1, i64::MAX), draft("b", 1, 1)], Rejection::AmountOutOfRange);
    let many = (0..=ITEMS_MAX).map(|n| draft(&format!("sku-{n}"), 1, 1)).collect();
    rejected(many, Rejection::TooManyItems { items: ITEMS_MAX + 1, items_max: ITEMS_MAX });
}

#[test]
fn items_change_before_payment_alone() {
    let other = vec![draft("prod-3", 1, 700)];
    let changed = OrderEvent::OrderItemsChanged(OrderItemsChanged { lines: lines(other.clone()), total: usd(700) });
    given::<Order>([created()]).when(change_items(other.clone())).then([changed.clone()]);
    given::<Order>([created(), changed]).when(change_items(other.clone())).then_nothing_happens();
    given::<Order>([created(), paid()]).when(change_items(other.clone())).then_rejected(Rejection::ItemsFrozen);
    given::<Order>([created(), cancelled()]).when(change_items(other)).then_rejected(Rejection::AlreadyCancelled);
}

#[test]
fn the_happy_path_leads_from_placed_to_delivered() {
    given::<Order>([created()]).when(PAY).then([paid()]);
    given::<Order>([created(), paid()]).when(SHIP).then([shipped()]);
    given::<Order>([created(), paid(), shipped()]).when(DELIVER).then([delivered()]);
    let basket = Basket { customer_id: "customer-1".parse().unwrap(), lines: lines(two_lines()), total: usd(4250) };
    given::<Order>([created(), paid(), shipped(), delivered()]).leads_to(&Order::Delivered(basket));
}

#[test]
fn the_changed_items_are_what_is_paid() {
    let other = vec![draft("prod-3", 1, 700)];
    let changed = OrderEvent::OrderItemsChanged(OrderItemsChanged { lines: lines(other), total: usd(700) });
    let paid = OrderEvent::OrderPaid(OrderPaid { amount: usd(700), payment_reference: None });
    given::<Order>([created(), changed]).when(PAY).then([paid]);
}

#[test]
fn steps_cannot_be_skipped_or_repeated() {
    given::<Order>([created()]).when(SHIP).then_rejected(Rejection::NotPaid);
    given::<Order>([created()]).when(DELIVER).then_rejected(Rejection::NotShipped);
    given::<Order>([created(), paid()]).when(DELIVER).then_rejected(Rejection::NotShipped);
    given::<Order>([created(), paid()]).when(PAY).then_rejected(Rejection::AlreadyPaid);
    given::<Order>([created(), paid(), shipped()]).when(SHIP).then_rejected(Rejection::AlreadyShipped);
    given::<Order>([created(), paid(), shipped(), delivered()])
        .when(DELIVER)
        .then_rejected(Rejection::AlreadyDelivered);
}

#[test]
fn an_order_is_cancelled_before_it_ships_and_refunded_when_paid() {
    given::<Order>([created()]).when(cancel()).then([cancelled()]);
    given::<Order>([created(), paid()]).when(cancel()).then([cancelled(), refunded()]);
    given::<Order>([created(), paid(), shipped()]).when(cancel()).then_rejected(Rejection::NotCancellable);
    given::<Order>([created(), cancelled()]).when(cancel()).then_rejected(Rejection::AlreadyCancelled);
    given::<Order>([created(), cancelled()]).when(PAY).then_rejected(Rejection::AlreadyCancelled);
    given::<Order>([created(), paid(), cancelled(), refunded()]).when(SHIP).then_rejected(Rejection::AlreadyCancelled);
}

#[test]
fn nothing_can_be_asked_of_an_order_that_does_not_exist() {
    for command in [PAY, SHIP, DELIVER, cancel(), change_items(two_lines())] {
        given::<Order>([]).when(command).then_rejected(Rejection::UnknownOrder);
    }
}
