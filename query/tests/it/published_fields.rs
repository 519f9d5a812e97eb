//! A writer that knows the six published fields alone (blueprint §2).

use domain::schema;
use query::intake::{Headers, Record};

use crate::world::{Kind, World, on_both_stores, order, whole_life};

on_both_stores!(
    it_becomes_version_1_of_its_order,
    repeated_it_is_a_duplicate_and_contradicted_a_dead_letter_but_never_a_fork,
    about_an_order_of_the_log_it_is_compared_with_its_first_event,
    its_key_may_be_anything_but_another_order,
);

const MESSAGE: &str = r#"{ "event_type": "OrderCreated", "order_id": "123e4567-e89b-12d3-a456-426614174000",
  "customer_id": "customer-1",
  "items": [{"sku": "prod-1", "quantity": 2}, {"sku": "prod-2", "quantity": 1}],
  "total": 42.50, "created_at": "2025-12-05T10:00:00Z" }"#;
const PATH: &str = "/orders/123e4567-e89b-12d3-a456-426614174000";

/// No key and no headers, as such a writer sends it.
fn bare(world: &mut World, text: &str) -> Record {
    Record { key: None, headers: Headers::default(), ..world.message(order(1), text.to_owned()) }
}

async fn it_becomes_version_1_of_its_order(kind: Kind) {
    let mut world = World::new(kind).await;
    let record = bare(&mut world, MESSAGE);
    assert_eq!(world.apply(vec![record]).await.applied, 1);
    let seen = world.get(PATH).await;
    assert!(seen.text.contains("\"total\":42.50,\"currency\":\"USD\""), "{}", seen.text);
    assert_eq!((&seen.json()["version"], &seen.json()["status"]), (&1.into(), &"CREATED".into()));
    assert_eq!(seen.json()["items"][0], serde_json::json!({"sku": "prod-1", "quantity": 2}));
    assert_eq!(seen.json()["created_at"], "2025-12-05T10:00:00Z");

    let history = world.get(&format!("{PATH}/history")).await.json();
    assert_eq!((&history[0]["schema_version"], &history[0]["actor"]), (&1.into(), &serde_json::Value::Null));
    let products = world.get("/products").await;
    assert!(products.text.contains(r#"{"sku":"prod-1","currency":"USD","units":2,"revenue":0.00}"#), "{products:?}");
}

async fn repeated_it_is_a_duplicate_and_contradicted_a_dead_letter_but_never_a_fork(kind: Kind) {
    let mut world = World::new(kind).await;
    let record = bare(&mut world, MESSAGE);
    // The same facts in other words.
    let respelt = MESSAGE.replace("42.50", "42.5").replace("10:00:00Z", "10:00:00.000Z");
    let (respelt, contradicting) = (bare(&mut world, &respelt), bare(&mut world, &MESSAGE.replace("42.50", "43")));
    // Within one batch, and then against the stored row.
    let all = vec![record, respelt, contradicting];
    let summary = world.apply(all.clone()).await;
    assert_eq!((summary.applied, summary.duplicates, summary.dead_letters), (1, 1, 1));
    let summary = world.apply(all).await;
    assert_eq!((summary.applied, summary.duplicates, summary.dead_letters), (0, 2, 1));
    assert_eq!(world.count("select count(*) from parked").await, 0);
    let letters = world.get("/dead-letters").await.json();
    assert_eq!((letters.as_array().unwrap().len(), &letters[0]["reason"]), (1, &"contradiction".into()));
}

async fn about_an_order_of_the_log_it_is_compared_with_its_first_event(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events).await;
    let published = schema::encode(&events[0]).unwrap();
    let tail = published.find(",\"currency\"").unwrap();
    let six_fields = format!("{}}}", &published[..tail]);
    let agreeing = bare(&mut world, &six_fields);
    let contradicting = bare(&mut world, &six_fields.replace("customer-1", "customer-2"));
    let summary = world.apply(vec![agreeing, contradicting]).await;
    assert_eq!((summary.duplicates, summary.dead_letters, summary.parked), (1, 1, 0));
}

async fn its_key_may_be_anything_but_another_order(kind: Kind) {
    let mut world = World::new(kind).await;
    let keyed = |key: &str, record: Record| Record { key: Some(key.as_bytes().to_vec()), ..record };
    let by_customer = keyed("customer-1", bare(&mut world, MESSAGE));
    assert_eq!(world.apply(vec![by_customer]).await.applied, 1);
    let by_other = keyed(&order(9).to_string(), bare(&mut world, MESSAGE));
    assert_eq!(world.apply(vec![by_other]).await.dead_letters, 1);
}
