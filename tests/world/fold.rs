//! The figures once more, folded from the topic by other code than the one under test.

use std::collections::{BTreeMap, HashMap};

use chassis::kafka::consumer::Message;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::topic::Position;

/// All sums over orders, in cents. Every test orders in US dollars.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) customers: BTreeMap<String, CustomerFigures>,
    /// By day, as `2026-11-23`.
    pub(crate) days: BTreeMap<String, DayFigures>,
    pub(crate) products: BTreeMap<String, ProductFigures>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CustomerFigures {
    pub(crate) orders: i64,
    pub(crate) cancellations: i64,
    pub(crate) spend: i64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DayFigures {
    pub(crate) orders: i64,
    pub(crate) cancellations: i64,
    pub(crate) revenue: i64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProductFigures {
    pub(crate) units: i64,
    pub(crate) revenue: i64,
}

#[derive(Deserialize)]
struct Fact {
    event_type: String,
    customer_id: Option<String>,
    items: Option<Vec<Item>>,
    amount: Option<Box<RawValue>>,
    occurred_at: String,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
    quantity: i64,
    unit_price: Box<RawValue>,
}

/// Exact cents from the digits of an amount: `42.50` is 4250.
pub(crate) fn cents(amount: &RawValue) -> i64 {
    let (whole, fraction) = amount.get().split_once('.').unwrap_or_else(|| panic!("{amount} has no cents"));
    assert_eq!(fraction.len(), 2, "{amount}");
    format!("{whole}{fraction}").parse().unwrap()
}

impl Figures {
    /// What the events of a topic come to. A repeated event counts once, and an order's events in their own order: in a
    /// topic that was made anew they may lie otherwise.
    pub(crate) fn of(messages: &[Message]) -> Self {
        let mut facts = BTreeMap::new();
        for message in messages {
            let payload = message.payload.as_deref().unwrap();
            let position: Position = serde_json::from_slice(payload).unwrap();
            let fact: Fact = serde_json::from_slice(payload).unwrap();
            facts.insert(position, fact);
        }
        let mut figures = Self::default();
        // Whose order it is, and what it holds.
        let mut orders: HashMap<Uuid, (String, Vec<Item>)> = HashMap::new();
        for (position, fact) in facts {
            figures.add(position.order_id, fact, &mut orders);
        }
        // What is wanted no more leaves a line of zeros or none; both say the same.
        figures.products.retain(|_sku, product| product.units != 0);
        figures
    }

    fn add(&mut self, order: Uuid, fact: Fact, orders: &mut HashMap<Uuid, (String, Vec<Item>)>) {
        let day = self.days.entry(fact.occurred_at[..10].to_owned()).or_default();
        if fact.event_type == "OrderCreated" {
            let (customer, items) = (fact.customer_id.unwrap(), fact.items.unwrap());
            day.orders += 1;
            self.customers.entry(customer.clone()).or_default().orders += 1;
            self.want(&items, 1);
            orders.insert(order, (customer, items));
            return;
        }
        let (customer_id, items) = orders.get_mut(&order).unwrap();
        let customer = self.customers.get_mut(customer_id).unwrap();
        let amount = fact.amount.as_deref().map(cents);
        match fact.event_type.as_str() {
            "OrderItemsChanged" => {
                let before = std::mem::replace(items, fact.items.unwrap());
                let after = orders[&order].1.as_slice();
                self.want(&before, -1);
                self.want(after, 1);
            }
            "OrderPaid" => {
                day.revenue += amount.unwrap();
                customer.spend += amount.unwrap();
            }
            "OrderRefunded" => {
                day.revenue -= amount.unwrap();
                customer.spend -= amount.unwrap();
            }
            "OrderCancelled" => {
                day.cancellations += 1;
                customer.cancellations += 1;
                let items = std::mem::take(items);
                self.want(&items, -1);
            }
            "OrderShipped" | "OrderDelivered" => {}
            other => panic!("the fold does not know {other}"),
        }
    }

    fn want(&mut self, items: &[Item], sign: i64) {
        for item in items {
            let product = self.products.entry(item.sku.clone()).or_default();
            product.units += sign * item.quantity;
            product.revenue += sign * item.quantity * cents(&item.unit_price);
        }
    }
}
