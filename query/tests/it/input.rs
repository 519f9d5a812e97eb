//! Bad input is the client's fault: no parameter of any route, on either store, causes a 5xx, and every refusal is a problem.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request};
use query::intake::{Digest, Position};
use query::intervention::LetterKey;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::desk::{ask, path_of_letter, post};
use crate::world::{Answer, History, Kind, World, day, get, on_both_stores, order, whole_life};

on_both_stores!(
    no_parameter_of_any_route_causes_a_5xx,
    text_that_a_database_refuses_is_refused_before_it_is_asked,
    times_that_cannot_be_written_are_neither_taken_nor_told,
);

/// What is asked of each parameter of each route.
const TRIES: usize = 60;

/// Values that have broken somebody's parser or database.
const HARSH: [&str; 40] = [
    "",
    " ",
    "\0",
    "a\0b",
    "\u{fffd}",
    "\u{10ffff}",
    "\u{202e}x",
    "'",
    "\"; drop table orders; --",
    "%",
    "%00",
    "_",
    "\\",
    "\r\n",
    "0",
    "1",
    "-1",
    "+1",
    "1.5",
    "1e400",
    "NaN",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "92233720368547758.07",
    "true",
    "null",
    "[]",
    "00000000-0000-0000-0000-000000000001",
    "00000000-0000-0000-0000-000000000001:1",
    "00000000-0000-0000-0000-000000000001:4294967295",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "-262143-01-01T00:00:00Z",
    "+262142-12-31",
    "-1-01-01",
    "bn__________8AAAAAAAAAAAAAAAAAAAAA",
    "b____________wAAAAAAAAAAAAAAAAAAAAA",
    "00000000000000000000000000000000",
];

/// The same numbers on every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn value(&mut self) -> String {
        match self.roll(4) {
            0 => (0..self.roll(12)).filter_map(|_| char::from_u32(u32::try_from(self.roll(0x300)).unwrap())).collect(),
            1 => HARSH[self.roll(HARSH.len())].repeat(1 + self.roll(40)),
            _ => HARSH[self.roll(HARSH.len())].to_owned(),
        }
    }
}

fn encoded(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Method, path and parameters of an operation, as the description of the API has them.
struct Operation {
    method: String,
    path: String,
    parameters: Vec<(String, String)>,
}

async fn operations(router: &Router) -> Vec<Operation> {
    let description = get(router, "/openapi.json", &[]).await.json();
    let mut found = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let text = |parameter: &Value, name: &str| parameter[name].as_str().unwrap().to_owned();
            let whole = |each: &Value| match each["$ref"].as_str() {
                Some(place) => description.pointer(place.trim_start_matches('#')).unwrap().clone(),
                None => each.clone(),
            };
            let parameters = parameters.iter().map(whole);
            let parameters = parameters.map(|each| (text(&each, "in"), text(&each, "name"))).collect();
            found.push(Operation { method: method.to_uppercase(), path: path.clone(), parameters });
        }
    }
    assert!(!found.is_empty());
    found
}

/// Asks with harsh values for one parameter, and for some of the others.
async fn try_one(router: &Router, dice: &mut Dice, operation: &Operation, tried: &str) {
    let (mut path, mut query, mut headers) = (operation.path.clone(), Vec::new(), Vec::new());
    for (place, name) in &operation.parameters {
        let value = if name == tried || dice.roll(6) == 0 { dice.value() } else { "1".to_owned() };
        match place.as_str() {
            "path" => path = path.replace(&format!("{{{name}}}"), &encoded(&value)),
            "query" if name == tried || dice.roll(6) == 0 => query.push(format!("{name}={}", encoded(&value))),
            "header" => headers.push((name.clone(), value)),
            _ => {}
        }
    }
    let uri = format!("{path}?{}", query.join("&"));
    let Ok(mut request) = Request::builder().method(operation.method.as_str()).uri(&uri).body(Body::empty()) else {
        return;
    };
    request.headers_mut().insert("prefer", HeaderValue::from_static("wait=0"));
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            request.headers_mut().insert(axum::http::HeaderName::try_from(name).unwrap(), value);
        }
    }
    let asked = format!("{} {uri} {:?}", operation.method, request.headers());
    if operation.path == "/orders/stream" {
        // A stream that was opened has no end.
        let response = router.clone().oneshot(request).await.unwrap();
        assert!(response.status().as_u16() < 500, "{asked}: {response:?}");
        return;
    }
    let answer = ask(router, request).await;
    let status = answer.status.as_u16();
    if status >= 400 {
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{asked}: {answer:?}");
        assert_eq!(answer.json()["status"], status, "{asked}");
    }
    let may_be = |code: &str| status == 503 && answer.json()["code"] == code;
    // What is waited for may not be there; this process does not rebuild.
    let rebuilds = ["/rebuild", "/rollback", "/generations"].contains(&operation.path.as_str());
    let honest = may_be("read-model-behind") || rebuilds && may_be("not-ready");
    assert!(status < 500 || honest, "{asked}: {answer:?}");
}

async fn no_parameter_of_any_route_causes_a_5xx(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    world.happen(&whole_life(2)[..2]).await;
    world.happen(&whole_life(3)[1..]).await;
    let mut dice = Dice(7);
    for router in [&world.router, &world.admin] {
        for operation in &operations(router).await {
            for (_place, name) in &operation.parameters {
                for _ in 0..TRIES {
                    try_one(router, &mut dice, operation, name).await;
                }
            }
        }
    }
}

fn letter(world: &mut World, payload: &str) -> query::intake::Record {
    world.message(order(9), payload.to_owned())
}

async fn text_that_a_database_refuses_is_refused_before_it_is_asked(kind: Kind) {
    let mut world = World::new(kind).await;
    let record = letter(&mut world, "no message");
    world.apply(vec![record]).await;
    for path in
        ["/dead-letters/%00/0/0/", "/dead-letters/a%00b/0/0/", "/dead-letters/a%20b/0/0/", "/dead-letters/%C3%A9/0/0/"]
    {
        let path = format!("{path}{}", "0".repeat(32));
        get(&world.admin, &path, &[]).await.assert_problem(400, "invalid-id");
        post(&world.admin, &format!("{path}/retry"), None).await.assert_problem(400, "invalid-id");
    }
    let known = path_of_letter(&world.listed("/dead-letters").await[0]);
    let discarded = post(&world.admin, &format!("{known}/discard"), Some(json!({ "reason": "a\0b" }))).await;
    discarded.assert_problem(422, "invalid-body");
    world.get("/customers/a%00b").await.assert_problem(400, "invalid-id");
    world.get("/products?sku=%00").await.assert_problem(400, "invalid-query");

    // Where a value passes all the same, the database's refusal is no fault of the service.
    let digest: Digest = [0; 16];
    let key = LetterKey { topic: "\0".to_owned(), position: Position { partition: 0, offset: 0 }, digest };
    match world.store.dead_letter(&key).await {
        Ok(found) => assert!(kind == Kind::Sqlite && found.is_none()),
        Err(error) => assert!(error.is_value_refused() && error.reason() == "value-refused", "{error:?}"),
    }
}

/// The message of a creation with other times.
fn created_at(world: &mut World, n: u128, time: &str) -> query::intake::Record {
    let created = History::new(order(n), day(1)).created("customer-1", "USD", &[("prod-1", 1, "15.00")]);
    let text = domain::schema::encode(&created.events[0]).unwrap();
    world.message(order(n), text.replace("2026-11-01T12:00:00Z", time))
}

async fn times_that_cannot_be_written_are_neither_taken_nor_told(kind: Kind) {
    let mut world = World::new(kind).await;
    let far = ["9999-12-31T23:59:60Z", "-262143-01-01T00:00:00Z", "+10000-01-01T00:00:00Z", "0000-12-31T00:00:00Z"];
    for (n, time) in (1..).zip(far) {
        let record = created_at(&mut world, n, time);
        assert_eq!(world.apply(vec![record]).await.dead_letters, 1, "{time}");
    }
    let letters = world.listed("/dead-letters").await;
    assert!(letters.iter().all(|letter| letter["reason"] == "unreadable"), "{letters:?}");
    assert!(letters[0]["detail"].as_str().unwrap().contains("years 0001 to 9999"), "{letters:?}");
    for (n, time, told) in
        [(11, "2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"), (12, "0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z")]
    {
        let record = created_at(&mut world, n, time);
        assert_eq!(world.apply(vec![record]).await.applied, 1, "{time}");
        assert_eq!(world.get(&format!("/orders/{}", order(n))).await.json()["created_at"], told);
    }
    let refused = [
        "/orders?created_from=%2B10000-01-01T00:00:00Z",
        "/orders?created_to=-0001-01-01T00:00:00Z",
        "/sales/daily?from=%2B10000-01-01",
        "/sales/daily?to=-0001-01-01",
        "/cancellations?from=0000-12-31",
    ];
    for path in refused {
        world.get(path).await.assert_problem(400, "invalid-query");
    }
    let as_of = format!("/orders/{}?as_of=9999-12-31T23:59:60Z", order(11));
    world.get(&as_of).await.assert_problem(400, "invalid-query");

    // Rows of a release that took such times.
    let far = "update customers set last_order_at = 253402300800000000; update daily_sales set day = 2932897 where day < 0; \
        update order_history set occurred_at = -70000000000000000";
    world.tamper(far, far).await;
    let customer = world.get("/customers/customer-1").await.json();
    assert_eq!(customer["last_order_at"], "9999-12-31T23:59:59.999999Z");
    let days = world.listed("/sales/daily").await;
    assert_eq!(days.last().unwrap()["day"], "9999-12-31");
    let history: Answer = world.get(&format!("/orders/{}/history", order(12))).await;
    assert_eq!(history.json()[0]["occurred_at"], "0001-01-01T00:00:00Z");
}
