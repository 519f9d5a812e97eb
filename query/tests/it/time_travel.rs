//! An order as it was at a version or a time, and what changed between two versions.

use serde_json::json;

use crate::world::{History, Kind, World, at, day, on_both_stores, order};

on_both_stores!(
    an_order_is_shown_as_it_was_at_a_version,
    an_order_is_shown_as_it_was_at_a_time,
    moments_before_an_order_existed_are_unknown,
    two_versions_are_compared_field_by_field,
);

/// Placed on the first, changed and paid on the second, given up and refunded on the third.
async fn eventful(kind: Kind) -> World {
    let mut world = World::new(kind).await;
    let history = History::new(order(1), day(1))
        .created("customer-1", "USD", &[("prod-1", 2, "15.00"), ("prod-2", 1, "12.50")])
        .on(day(2))
        .changed("USD", &[("prod-1", 3, "15.00"), ("prod-3", 1, "0.05")])
        .paid("45.05", "USD")
        .on(day(3))
        .cancelled("changed my mind")
        .refunded("45.05", "USD");
    world.happen(&history.events).await;
    world
}

fn path(question: &str) -> String {
    format!("/orders/{}{question}", order(1))
}

async fn an_order_is_shown_as_it_was_at_a_version(kind: Kind) {
    let mut world = World::new(kind).await;
    let history = History::new(order(1), day(1))
        .created("customer-1", "USD", &[("prod-1", 2, "15.00")])
        .paid("30.00", "USD")
        .shipped()
        .delivered();
    let mut seen = Vec::new();
    for event in &history.events {
        world.happen(std::slice::from_ref(event)).await;
        seen.push(world.get(&path("")).await);
    }
    for (version, then) in (1..).zip(seen) {
        let now = world.get(&path(&format!("?as_of_version={version}"))).await;
        assert_eq!((now.status.as_u16(), &now.text), (200, &then.text), "to the byte");
        assert_eq!(now.headers["etag"], then.headers["etag"]);
    }
}

async fn an_order_is_shown_as_it_was_at_a_time(kind: Kind) {
    let world = eventful(kind).await;
    for (time, status, version) in [
        ("2026-11-01T12:00:00Z", "CREATED", 1),
        ("2026-11-02T11:59:59.999999Z", "CREATED", 1),
        ("2026-11-02T12:00:00Z", "PAID", 3),
        ("2030-01-01T00:00:00Z", "CANCELLED", 5),
    ] {
        let seen = world.get(&path(&format!("?as_of={time}"))).await.json();
        assert_eq!((&seen["status"], &seen["version"]), (&json!(status), &json!(version)), "{time}");
        assert!(at(seen["updated_at"].as_str().unwrap()) <= at(time));
    }
}

async fn moments_before_an_order_existed_are_unknown(kind: Kind) {
    let world = eventful(kind).await;
    for question in ["?as_of_version=0", "?as_of_version=6", "?as_of=2026-11-01T11:59:59Z", "/diff?from=1&to=6"] {
        world.get(&path(question)).await.assert_problem(404, "unknown-version");
    }
    world.get(&format!("/orders/{}?as_of_version=1", order(2))).await.assert_problem(404, "unknown-order");
    world.get(&format!("/orders/{}/diff?from=1", order(2))).await.assert_problem(404, "unknown-order");
    for question in [
        "?as_of_version=1&as_of=2026-11-01T12:00:00Z",
        "?as_of=yesterday",
        "?as_of_version=-1",
        "/diff",
        "/diff?from=x",
        "/diff?from=1&until=2",
    ] {
        world.get(&path(question)).await.assert_problem(400, "invalid-query");
    }
}

async fn two_versions_are_compared_field_by_field(kind: Kind) {
    let world = eventful(kind).await;
    let changed = world.get(&path("/diff?from=1&to=2")).await;
    let head = format!(r#"{{"order_id":"{}","from":1,"to":2,"changes":["#, order(1));
    let expected = head
        + r#"{"field":"total","from":42.50,"to":45.05},"#
        + r#"{"field":"updated_at","from":"2026-11-01T12:00:00Z","to":"2026-11-02T12:00:00Z"},"#
        + r#"{"field":"items","sku":"prod-1","from":{"sku":"prod-1","quantity":2,"unit_price":15.00},"#
        + r#""to":{"sku":"prod-1","quantity":3,"unit_price":15.00}},"#
        + r#"{"field":"items","sku":"prod-3","from":null,"to":{"sku":"prod-3","quantity":1,"unit_price":0.05}},"#
        + r#"{"field":"items","sku":"prod-2","from":{"sku":"prod-2","quantity":1,"unit_price":12.50},"to":null}]}"#;
    assert_eq!(changed.text, expected);

    let back = world.get(&path("/diff?from=2&to=1")).await.json();
    assert_eq!(back["changes"][0], json!({"field": "total", "from": 45.05, "to": 42.5}));
    let rest = world.get(&path("/diff?from=3")).await.json();
    assert_eq!(rest["to"], 5);
    let fields: Vec<_> =
        rest["changes"].as_array().unwrap().iter().map(|change| change["field"].as_str().unwrap()).collect();
    assert_eq!(fields, ["cancelled", "refunded", "status", "updated_at"]);
    let birth = world.get(&path("/diff?from=0&to=1")).await.json();
    assert!(birth["changes"].as_array().unwrap().iter().all(|change| change["from"].is_null()));
    assert_eq!(world.get(&path("/diff?from=2&to=2")).await.json()["changes"], json!([]));
}
