//! What a client of the API meets.

use axum::body::Body;
use axum::http::{Request, StatusCode};

use crate::world::{ORDER, World};

#[tokio::test]
async fn an_order_is_placed_at_the_catalogues_prices() {
    let world = World::start().await;
    let response = world.post("/orders", ORDER).await;
    assert_eq!(response.status, StatusCode::CREATED);
    assert_eq!(response.header("etag"), Some("\"1\""));
    let order = response.json();
    let id = order["order_id"].as_str().unwrap();
    assert_eq!(response.header("location"), Some(format!("/orders/{id}").as_str()));
    assert_eq!((&order["status"], &order["version"]), (&"CREATED".into(), &1.into()));
    assert!(response.text.contains("\"total\":42.50,"), "{}", response.text);
    let stored: String = sqlx::query_scalar("select payload from events").fetch_one(&world.pool).await.unwrap();
    assert!(stored.contains("\"total\":42.50,"), "{stored}");
    world.assert_consistent().await;
}

#[tokio::test]
async fn an_order_lives_from_placed_to_delivered() {
    let world = World::start().await;
    let id = world.placed().await;
    let changed = r#"{"items":[{"sku":"prod-2","quantity":3}]}"#;
    let response = world.ask("PUT", &format!("/orders/{id}/items"), &[], changed).await;
    assert_eq!((response.status, &response.json()["version"]), (StatusCode::OK, &2.into()));
    assert!(response.text.contains("\"total\":37.50,"), "{}", response.text);
    let repeated = world.ask("PUT", &format!("/orders/{id}/items"), &[], changed).await;
    assert_eq!(repeated.json()["version"], 2, "the same items change nothing");
    for (step, body, status) in [
        ("pay", r#"{"payment_reference":"p-1"}"#, "PAID"),
        ("ship", r#"{"carrier":"post","tracking_number":"t-1"}"#, "SHIPPED"),
        ("deliver", "", "DELIVERED"),
    ] {
        let response = world.post(&format!("/orders/{id}/{step}"), body).await;
        assert_eq!(response.status, StatusCode::OK, "{step}: {}", response.text);
        assert_eq!(response.json()["status"], status);
    }
    let types: Vec<String> =
        sqlx::query_scalar("select event_type from events order by version").fetch_all(&world.pool).await.unwrap();
    assert_eq!(types, ["OrderCreated", "OrderItemsChanged", "OrderPaid", "OrderShipped", "OrderDelivered"]);
    world.assert_consistent().await;
}

#[tokio::test]
async fn cancelling_a_paid_order_refunds_it() {
    let world = World::start().await;
    let id = world.placed().await;
    world.post(&format!("/orders/{id}/pay"), "").await;
    let response = world.post(&format!("/orders/{id}/cancel"), r#"{"reason":"too late"}"#).await;
    assert_eq!((&response.json()["status"], &response.json()["version"]), (&"CANCELLED".into(), &4.into()));
    world.post(&format!("/orders/{id}/pay"), "").await.is_problem(409, "already-cancelled");
    world.assert_consistent().await;
}

#[tokio::test]
async fn what_the_rules_forbid_is_a_problem_with_a_code() {
    let world = World::start().await;
    let id = world.placed().await;
    world.post(&format!("/orders/{id}/ship"), "").await.is_problem(409, "not-paid");
    world.post(&format!("/orders/{}/pay", uuid::Uuid::now_v7()), "").await.is_problem(404, "unknown-order");
    world.post("/orders/not-a-uuid/pay", "").await.is_problem(400, "invalid-id");
    let empty = world.post("/orders", r#"{"customer_id":"c","items":[]}"#).await;
    empty.is_problem(422, "empty-order");
    assert_eq!(empty.json()["errors"][0]["pointer"], "/items");
    assert_eq!(empty.json()["outcome"], "not-executed");
    let zero = world.post("/orders", r#"{"customer_id":"c","items":[{"sku":"a","quantity":0}]}"#).await;
    zero.is_problem(422, "invalid-quantity");
    assert_eq!(zero.json()["errors"][0]["pointer"], "/items/0/quantity");
    world.assert_consistent().await;
    assert_eq!(world.count("select count(*) from events").await, 1, "a refusal leaves nothing behind");
}

#[tokio::test]
async fn bad_requests_are_told_which_field_is_at_fault_and_never_cause_a_500() {
    let world = World::start().await;
    let bodies = [
        ("", 415, "unsupported-media-type"),
        ("{", 400, "malformed-json"),
        ("[]", 422, "invalid-body"),
        ("[null,null]", 422, "invalid-body"),
        (r#"["c",[["prod-1",1]]]"#, 422, "invalid-body"),
        (r#"["c",[{"sku":"prod-1","quantity":1}]]"#, 422, "invalid-body"),
        (r#"{"customer_id":"c"}"#, 422, "invalid-body"),
        (r#"{"customer_id":"","items":[{"sku":"a","quantity":1}]}"#, 422, "invalid-body"),
        (r#"{"customer_id":"c","items":[{"sku":"a","quantity":-1}]}"#, 422, "invalid-body"),
        (r#"{"customer_id":"c","items":[{"sku":"a","quantity":1.5}]}"#, 422, "invalid-body"),
        (r#"{"customer_id":"c","items":[{"sku":"a","quantity":1,"unit_price":0}]}"#, 422, "invalid-body"),
        (r#"{"customer_id":"c","items":[{"sku":"a","quantity":1}],"total":1}"#, 422, "invalid-body"),
        ("{\"customer_id\":\"c\\u0000\",\"items\":[{\"sku\":\"a\",\"quantity\":1}]}", 422, ""),
    ];
    for (body, status, code) in bodies {
        let response = world.post("/orders", body).await;
        assert_eq!(response.status.as_u16(), status, "{body}: {}", response.text);
        assert!(code.is_empty() || response.json()["code"] == code, "{body}: {}", response.text);
    }
    let nested =
        world.post("/orders", r#"{"customer_id":"c","items":[{"sku":"prod-1","quantity":1},["prod-2",1]]}"#).await;
    nested.is_problem(422, "invalid-body");
    assert_eq!(nested.json()["errors"][0]["pointer"], "/items/1");
    let gzip = world.ask("POST", "/orders", &[("content-encoding", "gzip")], ORDER).await;
    gzip.is_problem(415, "unsupported-content-encoding");
    assert_eq!(gzip.header("accept-encoding"), Some("identity"));
    assert!(gzip.text.contains("gzip"), "{}", gzip.text);
    world.ask("GET", "/nothing", &[], "").await.is_problem(404, "not-found");
    let wrong_method = world.ask("DELETE", "/orders", &[], "").await;
    wrong_method.is_problem(405, "method-not-allowed");
    assert!(wrong_method.header("allow").unwrap().contains("POST"));
    for (name, value, code) in [
        ("idempotency-key", "", "invalid-idempotency-key"),
        ("if-match", "W/\"x\"", "invalid-if-match"),
        ("x-actor", &"a".repeat(200), "invalid-header"),
    ] {
        let path = format!("/orders/{}/pay", uuid::Uuid::now_v7());
        world.ask("POST", &path, &[(name, value)], "").await.is_problem(400, code);
    }
    let plain = Request::post("/orders").header("content-type", "text/plain").body(Body::from(ORDER)).unwrap();
    world.send(plain).await.is_problem(415, "unsupported-media-type");
    let large = format!(r#"{{"customer_id":"{}","items":[]}}"#, "c".repeat(70_000));
    world.post("/orders", &large).await.is_problem(413, "body-too-large");
}

#[tokio::test]
async fn if_match_guards_against_a_change_that_was_not_seen() {
    let world = World::start().await;
    let id = world.placed().await;
    let pay = format!("/orders/{id}/pay");
    let stale = world.ask("POST", &pay, &[("if-match", "\"7\"")], "").await;
    stale.is_problem(412, "version-mismatch");
    assert_eq!(stale.json()["current_version"], 1);
    for refused in ["\"+1\"", "+1", "\"01\"", "*, \"1\""] {
        world.ask("POST", &pay, &[("if-match", refused)], "").await.is_problem(400, "invalid-if-match");
    }
    let stale = world.ask("POST", &pay, &[("if-match", "\"7\", W/\"9\"")], "").await;
    stale.is_problem(412, "version-mismatch");
    assert!(stale.json()["detail"].as_str().unwrap().contains("version 7 or 9,"), "{}", stale.text);
    let fresh = world.ask("POST", &pay, &[("if-match", "\"1\"")], "").await;
    assert_eq!((fresh.status, fresh.header("etag")), (StatusCode::OK, Some("\"2\"")));
    // As order-query gives it: weak. And a list, as RFC 9110 has it.
    let ship = world.ask("POST", &format!("/orders/{id}/ship"), &[("if-match", "W/\"2\"")], "").await;
    assert_eq!((ship.status, ship.header("etag")), (StatusCode::OK, Some("\"3\"")));
    let deliver = world.ask("POST", &format!("/orders/{id}/deliver"), &[("if-match", "\"7\", \"3\"")], "").await;
    assert_eq!(deliver.status, StatusCode::OK, "{}", deliver.text);
}

#[tokio::test]
async fn prices_come_from_the_catalogue_and_from_nowhere_else() {
    let world = World::start().await;
    let put = |body: &'static str| world.ask("PUT", "/products/new-1", &[], body);
    assert_eq!(put(r#"{"unit_price":"0.05"}"#).await.status, StatusCode::CREATED);
    assert_eq!(put(r#"{"unit_price":7,"name":"seven"}"#).await.status, StatusCode::OK);
    put(r#"{"unit_price":7.5}"#).await.is_problem(422, "invalid-body");
    put(r#"{"unit_price":"7.555"}"#).await.is_problem(422, "invalid-product");
    put(r#"{"unit_price":"-1"}"#).await.is_problem(422, "invalid-product");
    put(r#"{"unit_price":"1","currency":"XXX"}"#).await.is_problem(422, "invalid-body");
    let product = world.ask("GET", "/products/new-1", &[], "").await.json();
    assert_eq!((&product["unit_price"], &product["name"]), (&"7.00".into(), &"seven".into()));
    world.ask("GET", "/products/none", &[], "").await.is_problem(404, "unknown-product");
    let order = world.post("/orders", r#"{"customer_id":"c","items":[{"sku":"new-1","quantity":2}]}"#).await;
    assert!(order.text.contains("\"total\":14.00,"), "{}", order.text);
    put(r#"{"unit_price":"8"}"#).await;
    let order = world.post("/orders", r#"{"customer_id":"c","items":[{"sku":"new-1","quantity":2}]}"#).await;
    assert!(order.text.contains("\"total\":16.00,"), "a price set through this node holds at once: {}", order.text);
    let unknown = world.post("/orders", r#"{"customer_id":"c","items":[{"sku":"odd","quantity":1}]}"#).await;
    assert!(unknown.text.contains("\"total\":10.00,"), "{}", unknown.text);
}

#[tokio::test]
async fn the_catalogue_is_listed_page_by_page() {
    let world = World::start().await;
    let first = world.ask("GET", "/products?limit=1", &[], "").await;
    assert_eq!(first.json()[0]["sku"], "prod-1");
    assert_eq!(first.header("link"), Some("</products?after=prod-1&limit=1>; rel=\"next\""));
    let second = world.ask("GET", "/products?after=prod-1&limit=1", &[], "").await;
    assert_eq!((&second.json()[0]["sku"], second.header("link")), (&"prod-2".into(), None));
    world.ask("GET", "/products?limit=0", &[], "").await.is_problem(400, "invalid-query");
    world.ask("GET", "/products?colour=red", &[], "").await.is_problem(400, "invalid-query");
}

#[tokio::test]
async fn who_asked_and_why_is_kept_beside_the_event() {
    let world = World::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers =
        [("x-actor", "alice"), ("x-correlation-id", "case-7"), ("x-request-id", "r-1"), ("traceparent", trace)];
    let response = world.ask("POST", "/orders", &headers, ORDER).await;
    assert_eq!(response.header("x-request-id"), Some("r-1"));
    let kept: (String, String, String, String) =
        sqlx::query_as("select actor, correlation_id, causation_id, traceparent from events")
            .fetch_one(&world.pool)
            .await
            .unwrap();
    assert_eq!((kept.0.as_str(), kept.1.as_str(), kept.2.as_str()), ("alice", "case-7", "r-1"));
    assert!(kept.3.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "the trace goes on: {}", kept.3);
}

#[tokio::test]
async fn the_api_describes_itself() {
    let world = World::start().await;
    let document = world.ask("GET", "/openapi.json", &[], "").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/orders", "/orders/{order_id}/items", "/orders/{order_id}/cancel", "/products/{sku}"] {
        assert!(document["paths"][path].is_object(), "{path} is not described");
    }
    assert!(world.ask("GET", "/docs/", &[], "").await.text.contains("swagger"));
    world.ask("GET", "/docs/nothing", &[], "").await.is_problem(404, "not-found");
    let index = world.ask("GET", "/", &[("accept", "*/*")], "").await;
    assert_eq!((index.status, &index.json()["name"]), (StatusCode::OK, &"order-command".into()));
    for link in index.json()["links"].as_object().unwrap().values().filter_map(|link| link.as_str()) {
        let ours = !link.starts_with("/health") && link != "/metrics";
        let status = world.ask("GET", link, &[], "").await.status;
        assert!(!ours || status.is_success() || status.is_redirection(), "{link}: {status}");
    }
    let page = world.ask("GET", "/", &[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], "").await;
    assert_eq!((page.status, page.header("location")), (StatusCode::SEE_OTHER, Some("/docs")));
}

#[tokio::test]
async fn what_no_database_can_hold_is_the_clients_fault() {
    let world = World::start().await;
    let id = world.placed().await;
    for path in [
        "/products?after=%00",
        "/products?after=a%00b",
        "/products?limit=%00",
        "/products?%00=1",
        "/products/%00",
        "/products/a%00b",
        "/products/%ff",
        "/internal/events?after=%00",
        "/internal/events?after=00000000-0000-0000-0000-000000000000:%00",
        "/internal/events?after=00000000-0000-0000-0000-000000000000:99999999999",
    ] {
        let answer = world.ask("GET", path, &[], "").await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.text);
    }
    world.ask("POST", "/orders/%00/pay", &[], "").await.is_problem(400, "invalid-id");
    world.ask("PUT", "/products/a%00", &[], r#"{"unit_price":1}"#).await.is_problem(400, "invalid-id");
    let named = world.ask("PUT", "/products/a", &[], "{\"unit_price\":1,\"name\":\"\\u0000\"}").await;
    named.is_problem(422, "invalid-body");
    let reason = world.post(&format!("/orders/{id}/cancel"), "{\"reason\":\"a\\u0000\"}").await;
    reason.is_problem(422, "invalid-body");
    // A header cannot hold the character itself; its escape is text like any other, and is kept as it is.
    let headers = ["idempotency-key", "x-actor", "x-correlation-id", "x-request-id", "traceparent"];
    for header in headers {
        assert!(axum::http::HeaderValue::from_bytes(b"a\0").is_err());
        let answer = world.ask("POST", "/orders", &[(header, "%00")], ORDER).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{header}: {}", answer.text);
    }
    world.assert_consistent().await;
}

#[tokio::test]
async fn the_location_of_a_new_order_leads_to_the_reader() {
    let world = World::start().await;
    let placed = world.post("/orders", ORDER).await;
    let location = placed.header("location").unwrap();
    let found = world.ask("GET", location, &[], "").await;
    assert_eq!(found.status, StatusCode::TEMPORARY_REDIRECT, "{}", found.text);
    let order = format!("http://reader.example/shop{location}");
    assert_eq!(found.header("location"), Some(format!("{order}?min_version=1").as_str()));
    let asked = world.ask("GET", &format!("{location}?min_version=1&as_of=2026-01-01T00:00:00Z"), &[], "").await;
    let expected = format!("{order}?min_version=1&as_of=2026-01-01T00:00:00Z");
    assert_eq!(asked.header("location"), Some(expected.as_str()));
    world.ask("GET", "/orders/%00", &[], "").await.is_problem(400, "invalid-id");
}
