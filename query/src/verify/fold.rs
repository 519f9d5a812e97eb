//! The read model once more, folded from the history alone: by the rules of the domain, order by order, and without any
//! code of the projections.

use std::collections::{BTreeMap, BTreeSet};

use domain::decider::Decider as _;
use domain::order::{Line, Order, Status};
use domain::{Money, OrderEvent, OrderId, Recorded};

use crate::projections::cancellations::Reason;
use crate::store::digest::{Digests, TableDigest};

const DAY_SECONDS: i64 = 86_400;

/// What is expected of the tables, once every order was folded.
#[derive(Debug, Default)]
pub(super) struct Expected {
    orders: TableDigest,
    order_products: TableDigest,
    /// By customer and currency.
    customers: BTreeMap<(String, String), Customer>,
    /// Orders, cancellations, revenue.
    days: BTreeMap<(i64, String), (i64, i64, i128)>,
    /// Pieces, revenue.
    demand: BTreeMap<(String, String), (i64, i128)>,
    /// Orders given up, by day, customer and reason.
    cancellations: BTreeMap<(i64, String, String), i64>,
    folding: Option<Folding>,
}

/// What a customer's orders add up to.
#[derive(Debug)]
struct Customer {
    orders: i64,
    cancellations: i64,
    spend: i128,
    newest: (i64, OrderId),
}

impl Customer {
    /// Nothing yet; no order is older than `newest`.
    fn new(newest: (i64, OrderId)) -> Self {
        Self { orders: 0, cancellations: 0, spend: 0, newest }
    }
}

/// An order that is being folded.
#[derive(Debug)]
struct Folding {
    order_id: OrderId,
    order: Order,
    version: u32,
    created_at_micros: i64,
    paid: Option<i64>,
    refunded: bool,
}

/// What an order is, whichever way that was found: what is compared of the orders.
pub(super) fn order_facts(
    order_id: OrderId,
    (customer_id, status, total): (&str, Status, Money),
    version: u32,
    created_at_micros: i64,
    lines: &[Line],
) -> impl serde::Serialize {
    let lines: Vec<_> = lines
        .iter()
        .map(|line| (line.sku.as_str().to_owned(), line.quantity, line.unit_price.map(Money::minor)))
        .collect();
    let total = (String::from(total.currency()), total.minor());
    (order_id.0, customer_id.to_owned(), status.as_str(), total, version, created_at_micros, lines)
}

impl Expected {
    /// The next event. Those of an order come together, in order.
    pub(super) fn see(&mut self, recorded: &Recorded<OrderEvent>) -> Result<(), serde_json::Error> {
        let mut folding = match self.folding.take() {
            Some(folding) if folding.order_id == recorded.order_id => folding,
            before => {
                before.map_or(Ok(()), |before| self.finish(&before))?;
                Folding {
                    order_id: recorded.order_id,
                    order: Order::Absent,
                    version: 0,
                    created_at_micros: 0,
                    paid: None,
                    refunded: false,
                }
            }
        };
        self.fold(&mut folding, recorded);
        self.folding = Some(folding);
        Ok(())
    }

    fn fold(&mut self, folding: &mut Folding, recorded: &Recorded<OrderEvent>) {
        folding.version = recorded.version.0;
        let day = recorded.occurred_at.timestamp().div_euclid(DAY_SECONDS);
        let cancelled_before = folding.order.status() == Some(Status::Cancelled);
        let currency = folding.order.basket().map(|basket| basket.total.currency());
        let foreign = |amount: Money| currency.is_some_and(|currency| currency != amount.currency());
        match &recorded.event {
            // Amounts of another currency than the order's are no part of its life.
            OrderEvent::OrderItemsChanged(changed) if foreign(changed.total) => return,
            OrderEvent::OrderPaid(paid) if foreign(paid.amount) => return,
            OrderEvent::OrderPaid(paid) if folding.order.status() == Some(Status::Created) => {
                folding.paid = Some(paid.amount.minor());
                self.earn(folding, day, i128::from(paid.amount.minor()));
            }
            OrderEvent::OrderRefunded(refunded)
                if cancelled_before && folding.paid.is_some() && !folding.refunded && !foreign(refunded.amount) =>
            {
                folding.refunded = true;
                self.earn(folding, day, -i128::from(refunded.amount.minor()));
            }
            OrderEvent::OrderCreated(created) => folding.created_at_micros = created.created_at.timestamp_micros(),
            _ => {}
        }
        let existed = folding.order != Order::Absent;
        folding.order = Order::evolve(std::mem::take(&mut folding.order), &recorded.event);
        let Some(basket) = folding.order.basket() else { return };
        let (customer, currency) = (basket.customer_id.as_str().to_owned(), String::from(basket.total.currency()));
        let newest = (folding.created_at_micros, folding.order_id);
        if !existed {
            let row = self.customers.entry((customer, currency.clone())).or_insert(Customer::new(newest));
            row.orders += 1;
            row.newest = row.newest.max(newest);
            self.days.entry((day, currency.clone())).or_default().0 += 1;
        } else if !cancelled_before && folding.order.status() == Some(Status::Cancelled) {
            self.customers.entry((customer, currency.clone())).or_insert(Customer::new(newest)).cancellations += 1;
            self.days.entry((day, currency.clone())).or_default().1 += 1;
            if let OrderEvent::OrderCancelled(cancelled) = &recorded.event {
                let reason = Reason::from(cancelled.reason.as_str()).as_str().to_owned();
                let customer = basket.customer_id.as_str().to_owned();
                *self.cancellations.entry((day, customer, reason)).or_default() += 1;
            }
        }
        // A product that was wanted once has a row, if only of zeros.
        for line in &basket.lines {
            self.demand.entry((line.sku.as_str().to_owned(), currency.clone())).or_default();
        }
    }

    fn earn(&mut self, folding: &Folding, day: i64, minor: i128) {
        let Some(basket) = folding.order.basket() else { return };
        let currency = String::from(basket.total.currency());
        let newest = (folding.created_at_micros, folding.order_id);
        let customer = (basket.customer_id.as_str().to_owned(), currency.clone());
        self.customers.entry(customer).or_insert(Customer::new(newest)).spend += minor;
        if minor != 0 {
            self.days.entry((day, currency)).or_default().2 += minor;
        }
    }

    fn finish(&mut self, folded: &Folding) -> Result<(), serde_json::Error> {
        let Folding { order_id, order, version, created_at_micros, .. } = folded;
        let (Some(basket), Some(status)) = (order.basket(), order.status()) else { return Ok(()) };
        let who = (basket.customer_id.as_str(), status, basket.total);
        self.orders.add(&order_facts(*order_id, who, *version, *created_at_micros, &basket.lines))?;
        let currency = String::from(basket.total.currency());
        let skus: BTreeSet<&str> = basket.lines.iter().map(|line| line.sku.as_str()).collect();
        for sku in skus {
            let id = order_id.0.as_bytes().to_vec();
            self.order_products.add(&(sku, created_at_micros, id, &currency, basket.total.minor()))?;
        }
        if status != Status::Cancelled {
            for line in &basket.lines {
                let row = self.demand.entry((line.sku.as_str().to_owned(), currency.clone())).or_default();
                row.0 += i64::from(line.quantity);
                row.1 += line.unit_price.map_or(0, |price| i128::from(price.minor()) * i128::from(line.quantity));
            }
        }
        Ok(())
    }

    /// What every table adds up to. `orders` is of [`order_facts`], not of the rows.
    pub(super) fn digests(mut self) -> Result<Digests, serde_json::Error> {
        if let Some(last) = self.folding.take() {
            self.finish(&last)?;
        }
        let mut customers = TableDigest::default();
        for ((customer, currency), row) in self.customers {
            let Customer { orders, cancellations, spend, newest: (at, id) } = row;
            let id = id.0.as_bytes().to_vec();
            customers.add(&(customer, currency, orders, cancellations, spend.to_string(), at, id))?;
        }
        let mut days = TableDigest::default();
        for ((day, currency), (orders, cancellations, revenue)) in self.days {
            days.add(&(day, currency, orders, cancellations, revenue.to_string()))?;
        }
        let mut demand = TableDigest::default();
        for ((sku, currency), (units, revenue)) in self.demand {
            demand.add(&(sku, currency, units, revenue.to_string()))?;
        }
        let mut cancellations = TableDigest::default();
        for ((day, customer, reason), orders) in self.cancellations {
            cancellations.add(&(day, customer, reason, orders))?;
        }
        Ok(Digests::from([
            ("cancellations", cancellations),
            ("orders", self.orders),
            ("order_products", self.order_products),
            ("customers", customers),
            ("daily_sales", days),
            ("product_demand", demand),
        ]))
    }
}
