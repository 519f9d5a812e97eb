//! New orders as they stand on the topic: as many as one likes, always the same.

use chrono::{DateTime, Duration, Utc};
use domain::order::Line;
use domain::order::event::OrderCreated;
use domain::{Currency, EventId, Money, OrderEvent, OrderId, Recorded, Version, schema};
use query::intake::{Headers, Position, Record};
use uuid::Uuid;

/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 6;
/// Products that are ordered.
const PRODUCTS: u64 = 200;
/// So many orders of a customer, unless asked otherwise.
pub(crate) const ORDERS_OF_CUSTOMER: u64 = 10;

/// A new order.
#[derive(Debug, Clone)]
pub(crate) struct NewOrder {
    pub(crate) order_id: OrderId,
    pub(crate) customer_id: String,
    pub(crate) skus: [String; 2],
    pub(crate) total: Money,
    pub(crate) created_at: DateTime<Utc>,
    pub(crate) recorded: Recorded<OrderEvent>,
    /// The message.
    pub(crate) message: String,
}

pub(crate) fn usd() -> Currency {
    "USD".parse().unwrap()
}

/// The n-th of `orders` orders, whose customers come in no order.
pub(crate) fn new_order(n: u64, orders: u64, of_customer: u64) -> NewOrder {
    // Multiplying by an odd number and cutting off gives every customer its share, scattered.
    let customers = (orders / of_customer).max(1);
    let scattered = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let customer_id = format!("customer-{}", (scattered >> 20) % customers);
    let skus = [(scattered >> 8) % PRODUCTS, (scattered >> 8) % PRODUCTS + PRODUCTS].map(|sku| format!("prod-{sku}"));
    let micros = i64::try_from(n).unwrap() * 250;
    let created_at = DateTime::from_timestamp(1_790_000_000, 0).unwrap() + Duration::microseconds(micros);
    // In the order of their creation, as UUIDv7 are.
    let millis = u128::try_from(created_at.timestamp_millis()).unwrap();
    let order_id = OrderId(Uuid::from_u128((millis << 80) | (0x7 << 76) | (0x2 << 62) | u128::from(n)));
    let price = |minor| Money::from_minor(minor, usd()).unwrap();
    let line =
        |sku: &String, quantity, minor| Line { sku: sku.parse().unwrap(), quantity, unit_price: Some(price(minor)) };
    let total = price(4_250 + i64::try_from(scattered % 100).unwrap());
    let event = OrderEvent::OrderCreated(OrderCreated {
        customer_id: customer_id.parse().unwrap(),
        lines: vec![line(&skus[0], 2, 1_500), line(&skus[1], 1, 1_250)],
        total,
        created_at,
    });
    let event_id = EventId(Uuid::from_u128(order_id.0.as_u128() | (1 << 60)));
    let recorded = Recorded { event_id, order_id, version: Version::FIRST, occurred_at: created_at, event };
    let message = schema::encode(&recorded).unwrap();
    NewOrder { order_id, customer_id, skus, total, created_at, recorded, message }
}

impl NewOrder {
    /// As the reader hands it over, at the n-th place of the topic.
    pub(crate) fn record(&self, n: u64) -> Record {
        let partitions = u64::try_from(PARTITIONS).unwrap();
        let position = Position {
            partition: i32::try_from(n % partitions).unwrap(),
            offset: i64::try_from(n / partitions).unwrap(),
        };
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Record {
            position,
            key: Some(self.order_id.to_string().into_bytes()),
            payload: Some(self.message.clone().into_bytes()),
            headers: Headers(vec![
                header("content-type", "application/json"),
                header("ce_id", "0193a1b2-0000-7000-8000-000000000011"),
                header("ce_type", "orders.OrderCreated.v2"),
                header("ce_correlationid", "0193a1b2-0000-7000-8000-000000000012"),
                header("ce_causationid", "0193a1b2-0000-7000-8000-000000000012"),
            ]),
        }
    }
}
