//! `GET /orders`: filters, and pages that walk everything exactly once.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{Answer, History, Kind, World, at, day, on_both_stores, order};

on_both_stores!(
    pages_walk_everything_exactly_once_newest_first,
    a_page_survives_orders_that_come_while_it_is_read,
    filters_narrow_and_combine,
    an_empty_list_is_an_empty_array,
    unknown_and_malformed_parameters_are_refused,
);

/// 25 orders, several at the same instant, of three customers, half of them paid.
async fn many(kind: Kind) -> World {
    let mut world = World::new(kind).await;
    for n in 0..25_u32 {
        let history = History::new(order(u128::from(n) * 7 % 25), day(1 + n / 5)).created(
            &format!("customer-{}", n % 3),
            "USD",
            &[(if n % 2 == 0 { "even" } else { "odd" }, n + 1, "10.00")],
        );
        let history = if n % 2 == 0 { history.paid(&format!("{}.00", (n + 1) * 10), "USD") } else { history };
        world.happen(&history.events).await;
    }
    world
}

fn ids(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    json.as_array().unwrap().iter().map(|order| order["order_id"].as_str().unwrap().to_owned()).collect()
}

async fn walk(world: &World, first: &str) -> Vec<String> {
    let (mut seen, mut next) = (Vec::new(), Some(first.to_owned()));
    while let Some(path) = next {
        let page = world.get(&path).await;
        assert_eq!(page.status, 200, "{page:?}");
        seen.extend(ids(&page));
        assert!(seen.len() <= 100, "a walk that goes in circles: {seen:?}");
        next = page.headers.get("link").map(|link| {
            let link = link.to_str().unwrap();
            assert!(link.ends_with("; rel=\"next\""), "{link}");
            link.split(['<', '>']).nth(1).unwrap().to_owned()
        });
    }
    seen
}

async fn pages_walk_everything_exactly_once_newest_first(kind: Kind) {
    let world = many(kind).await;
    let all = world.get("/orders").await;
    assert!(!all.headers.contains_key("link"));
    let all_ids = ids(&all);
    assert_eq!(all_ids.iter().collect::<BTreeSet<_>>().len(), 25);
    let json = all.json();
    let times: Vec<_> =
        json.as_array().unwrap().iter().map(|order| at(order["created_at"].as_str().unwrap())).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older));
    for limit in [1, 4, 5, 24, 25] {
        assert_eq!(walk(&world, &format!("/orders?limit={limit}")).await, all_ids, "limit {limit}");
    }
    let of_one = walk(&world, "/orders?limit=2&customer_id=customer-1").await;
    assert_eq!(of_one.len(), 8);
}

async fn a_page_survives_orders_that_come_while_it_is_read(kind: Kind) {
    let mut world = many(kind).await;
    let all_ids = ids(&world.get("/orders").await);
    let first = world.get("/orders?limit=10").await;
    let newer = History::new(order(1000), day(9)).created("customer-1", "USD", &[("even", 1, "1.00")]);
    world.happen(&newer.events).await;
    let link = first.headers["link"].to_str().unwrap().to_owned();
    let rest = walk(&world, link.split(['<', '>']).nth(1).unwrap()).await;
    assert_eq!([ids(&first), rest].concat(), all_ids);
}

async fn filters_narrow_and_combine(kind: Kind) {
    let mut world = many(kind).await;
    let yen = History::new(order(500), day(1)).created("customer-9", "JPY", &[("even", 1, "100")]);
    world.happen(&yen.events).await;
    let count = async |query: &str| ids(&world.get(&format!("/orders?{query}")).await).len();
    assert_eq!(count("status=PAID").await, 13);
    assert_eq!(count("status=CREATED&sku=even").await, 1);
    assert_eq!(count("sku=odd").await, 12);
    assert_eq!(count("sku=none").await, 0);
    assert_eq!(count("created_from=2026-11-02T12:00:00Z&created_to=2026-11-03T12:00:00Z").await, 10);
    assert_eq!(count("min_total=100&max_total=109.99").await, 1);
    assert_eq!(count("min_total=100").await, 16, "in the default currency");
    assert_eq!(count("min_total=100&currency=JPY").await, 1);
    assert_eq!(count("currency=JPY").await, 1);
}

async fn an_empty_list_is_an_empty_array(kind: Kind) {
    let world = World::new(kind).await;
    let answer = world.get("/orders").await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, "[]"));
    assert_eq!(answer.headers["content-type"], "application/json");
}

async fn unknown_and_malformed_parameters_are_refused(kind: Kind) {
    let world = World::new(kind).await;
    for query in [
        "colour=red",
        "limit=0",
        "limit=201",
        "limit=ten",
        "status=paid",
        "status=",
        "customer_id=",
        "created_from=yesterday",
        "currency=usd",
        "min_total=ten",
        "min_total=1.005",
        "min_total=0.5&currency=JPY",
        "limit=1&limit=2",
    ] {
        world.get(&format!("/orders?{query}")).await.assert_problem(400, "invalid-query");
    }
    for cursor in ["x", "", "AAAA"] {
        world.get(&format!("/orders?cursor={cursor}")).await.assert_problem(400, "invalid-cursor");
    }
    let problem = world.get("/orders?min_total=1.005").await.json();
    assert_eq!(problem["errors"][0]["pointer"], Value::from("min_total"));
}
