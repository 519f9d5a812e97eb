//! `GET /orders/{id}` and its history.

use std::time::Duration;

use domain::schema;
use serde_json::json;

use crate::world::{History, Kind, World, day, on_both_stores, order, whole_life};

on_both_stores!(
    an_order_shows_its_whole_life,
    unknown_and_malformed_ids_are_told_apart,
    what_is_known_is_not_sent_again,
    the_history_is_every_event_as_it_was_published,
    a_reader_can_wait_for_a_version,
    an_order_that_is_not_there_yet_can_be_waited_for_too,
);

async fn an_order_shows_its_whole_life(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events[..1]).await;
    let created = world.get(&format!("/orders/{}", order(1))).await;
    let expected = format!(
        r#"{{"order_id":"{}","customer_id":"customer-1","status":"CREATED","version":1,"items":["#,
        order(1)
    ) + r#"{"sku":"prod-1","quantity":2,"unit_price":15.00},{"sku":"prod-2","quantity":1,"unit_price":12.50}],"#
        + r#""total":42.50,"currency":"USD","created_at":"2026-11-01T12:00:00Z","updated_at":"2026-11-01T12:00:00Z"}"#;
    assert_eq!(created.text, expected);

    world.happen(&events[1..]).await;
    let delivered = world.get(&format!("/orders/{}", order(1))).await.json();
    assert_eq!((&delivered["status"], &delivered["version"]), (&json!("DELIVERED"), &json!(4)));
    assert_eq!(delivered["paid"]["payment_reference"], "pay-1");
    assert_eq!(delivered["shipped"]["tracking_number"], "P-1");

    let cancelled = History::new(order(2), day(2))
        .created("customer-1", "BHD", &[("prod-1", 1, "42.5")])
        .paid("42.5", "BHD")
        .cancelled("changed my mind")
        .refunded("42.5", "BHD");
    world.happen(&cancelled.events).await;
    let cancelled = world.get(&format!("/orders/{}", order(2))).await;
    assert!(cancelled.text.contains(r#""total":42.500,"#), "{}", cancelled.text);
    assert!(cancelled.text.contains(r#""refunded":{"amount":42.500,"#), "{}", cancelled.text);
    assert_eq!(cancelled.json()["cancelled"]["reason"], "changed my mind");
}

async fn unknown_and_malformed_ids_are_told_apart(kind: Kind) {
    let world = World::new(kind).await;
    world.get(&format!("/orders/{}", order(1))).await.assert_problem(404, "unknown-order");
    world.get(&format!("/orders/{}/history", order(1))).await.assert_problem(404, "unknown-order");
    world.get("/orders/not-an-id").await.assert_problem(400, "invalid-id");
    world.get(&format!("/orders/{}?colour=red", order(1))).await.assert_problem(400, "invalid-query");
    world.get("/nowhere").await.assert_problem(404, "not-found");
}

async fn what_is_known_is_not_sent_again(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events[..2]).await;
    let path = format!("/orders/{}", order(1));
    let seen = world.get(&path).await;
    assert_eq!(seen.headers["etag"], "W/\"2\"");
    for known in ["W/\"2\"", "\"2\"", "*", "\"1\", W/\"2\""] {
        let again = world.get_with(&path, &[("if-none-match", known)]).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{known}");
        assert_eq!(again.headers["etag"], "W/\"2\"");
    }
    world.happen(&events[2..3]).await;
    assert_eq!(world.get_with(&path, &[("if-none-match", "W/\"2\"")]).await.status, 200);
}

async fn the_history_is_every_event_as_it_was_published(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events).await;
    let history = world.get(&format!("/orders/{}/history", order(1))).await;
    for event in &events {
        let published = format!("\"data\":{}", schema::encode(event).unwrap());
        assert!(history.text.contains(&published), "{} lacks {published}", history.text);
    }
    let json = history.json();
    let first = &json[0];
    assert_eq!(first["event_type"], "OrderCreated");
    assert_eq!((&first["version"], &first["schema_version"]), (&json!(1), &json!(2)));
    assert_eq!((&first["actor"], &first["correlation_id"]), (&json!("alice"), &json!("c-1")));
    assert_eq!(first["causation_id"], json!(null));
    let versions: Vec<_> = json.as_array().unwrap().iter().map(|event| event["version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [1, 2, 3, 4]);
}

async fn a_reader_can_wait_for_a_version(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events[..1]).await;
    let path = format!("/orders/{}?min_version=2", order(1));
    let behind = world.get_with(&path, &[("prefer", "wait=0")]).await;
    behind.assert_problem(503, "read-model-behind");
    assert_eq!((&behind.json()["version"], &behind.headers["retry-after"]), (&json!(1), &"1".parse().unwrap()));

    // Waits from before the event; the wait is longer than any machine is slow.
    let router = world.router.clone();
    let waiting =
        tokio::spawn(async move { crate::world::get(&router, &path, &[("prefer", "respond-async, wait=10")]).await });
    tokio::task::yield_now().await;
    world.happen(&events[1..2]).await;
    let answer = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    assert_eq!((answer.status.as_u16(), &answer.json()["status"]), (200, &json!("PAID")));
    let history = world.get(&format!("/orders/{}/history?min_version=2", order(1))).await;
    assert_eq!(history.json().as_array().unwrap().len(), 2);
}

async fn an_order_that_is_not_there_yet_can_be_waited_for_too(kind: Kind) {
    let mut world = World::new(kind).await;
    let router = world.router.clone();
    let path = format!("/orders/{}?min_version=1", order(1));
    let waiting = tokio::spawn(async move { crate::world::get(&router, &path, &[("prefer", "wait=10")]).await });
    tokio::task::yield_now().await;
    world.happen(&whole_life(1)).await;
    assert_eq!(waiting.await.unwrap().status, 200);
}
