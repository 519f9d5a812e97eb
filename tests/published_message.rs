use chassis::testkit::eventually;
use chrono::{DateTime, Utc};
use serde::Deserialize;
use uuid::Uuid;

use crate::world::client::{Order, TWO_AND_ONE};
use crate::world::{SOON, World};

/// The contract, as somebody wrote it down who never heard of anything else.
#[derive(Debug, Deserialize)]
struct SixFields {
    event_type: String,
    order_id: Uuid,
    customer_id: String,
    items: Vec<Item>,
    total: f64,
    created_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
struct Item {
    sku: String,
    quantity: u32,
}

fn message(order: Uuid, total: &str, created_at: &str) -> String {
    format!(
        r#"{{ "event_type": "OrderCreated", "order_id": "{order}",
  "customer_id": "customer-1",
  "items": [{{"sku": "prod-1", "quantity": 2}}, {{"sku": "prod-2", "quantity": 1}}],
  "total": {total}, "created_at": "{created_at}" }}"#
    )
}

fn someone_elses() -> Order {
    Order { id: Uuid::now_v7(), version: 1 }
}

#[tokio::test]
async fn a_consumer_of_the_six_fields_alone_reads_our_message() {
    let world = World::start().await;
    let before = Utc::now();
    let order = world.customer("customer-1").places(TWO_AND_ONE).await;
    world.sees(order).at(1).await;

    let published = world.topic.everything().await;
    assert_eq!(published.len(), 1);
    let record = &published[0];
    assert_eq!(record.key.as_deref(), Some(order.id.to_string().as_bytes()));
    let read: SixFields = serde_json::from_slice(record.payload.as_deref().unwrap()).unwrap();
    assert_eq!(read.event_type, "OrderCreated");
    assert_eq!(read.order_id, order.id);
    assert_eq!(read.customer_id, "customer-1");
    let items: Vec<_> = read.items.iter().map(|item| (item.sku.as_str(), item.quantity)).collect();
    assert_eq!(items, TWO_AND_ONE);
    assert!((read.total - 42.50).abs() < f64::EPSILON);
    assert!((before..=Utc::now()).contains(&read.created_at), "{}", read.created_at);
    world.end().await;
}

#[tokio::test]
async fn a_record_tells_in_its_headers_what_it_is() {
    let world = World::start().await;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = world.customer("customer-1").asks_for(TWO_AND_ONE).header("traceparent", parent);
    let order = crate::world::client::Answer::to(request).await.unwrap().is(201).order();
    world.sees(order).at(1).await;

    let published = world.topic.everything().await;
    let header = |name: &str| {
        let found = published[0].headers.iter().find(|(header, _)| header == name);
        String::from_utf8(found.unwrap_or_else(|| panic!("no header {name}")).1.clone()).unwrap()
    };
    assert_eq!(header("content-type"), "application/json");
    assert_eq!(header("ce_specversion"), "1.0");
    assert_eq!(header("ce_subject"), order.id.to_string());
    assert_eq!(header("ce_type"), "orders.OrderCreated.v2");
    assert!(header("ce_id").parse::<Uuid>().is_ok());
    assert!(header("traceparent").contains("0af7651916cd43dd8448eb211c80319c"));
    world.end().await;
}

#[tokio::test]
async fn a_message_of_the_six_fields_alone_is_shown() {
    let world = World::start().await;
    for (total, shown) in [("42.50", "42.50"), ("42.5", "42.50"), ("42", "42.00")] {
        for created_at in ["2025-12-05T10:00:00Z", "2025-12-05T10:00:00.5Z", "2025-12-05T10:00:00.123456Z"] {
            let order = someone_elses();
            world.topic.publish(&message(order.id, total, created_at)).await;
            let seen = world.sees(order).at(1).await;
            assert!(seen.body.contains(&format!("\"total\":{shown},")), "{total}: {}", seen.body);
            let seen = seen.json();
            assert_eq!(seen["customer_id"], "customer-1");
            assert_eq!(seen["status"], "CREATED");
            assert_eq!(seen["items"][1]["sku"], "prod-2");
            assert!(seen["items"][1].get("unit_price").is_none(), "nobody told it");
            let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
            assert_eq!(time(seen["created_at"].as_str().unwrap()), time(created_at));
        }
    }
    world.end().await;
}

#[tokio::test]
async fn a_foreign_message_repeated_is_nothing_and_contradicted_is_a_dead_letter() {
    let mut world = World::start().await;
    let (order, next) = (someone_elses(), someone_elses());
    world.topic.publish(&message(order.id, "42.50", "2025-12-05T10:00:00Z")).await;
    // Equal in what it says, not in its bytes.
    world.topic.publish(&message(order.id, "42.5", "2025-12-05T10:00:00.000Z")).await;
    world.topic.publish(&message(next.id, "42.50", "2025-12-05T10:00:00Z")).await;
    // The next one is seen, so the repeat before it has been dealt with.
    world.sees(next).at(1).await;
    assert_eq!(world.reads().dead_letters().await.len(), 0);
    assert_eq!(world.reads().orders().await.len(), 2);
    let customers = world.reads().figures().await.customers;
    assert_eq!(customers["customer-1"].orders, 2, "the repeat is not counted");

    world.topic.publish(&message(order.id, "99.99", "2025-12-05T10:00:00Z")).await;
    let letter = eventually(SOON, "the contradiction is a dead letter", || async {
        world.reads().dead_letters().await.pop().ok_or_else(|| "none yet".to_owned())
    })
    .await;
    assert_eq!(letter["reason"], "contradiction");
    assert!(letter["payload"].as_str().unwrap().contains("99.99"), "it is kept whole");
    let seen = world.sees(order).at(1).await;
    assert!(seen.body.contains("\"total\":42.50"), "the first word stands: {}", seen.body);
    world.expects_dead_letters(1);
    world.end().await;
}
