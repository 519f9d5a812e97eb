//! `GET /orders`: filters, and pages that walk everything exactly once.

use std::collections::BTreeSet;

use chassis::kafka::Brokers;
use serde_json::Value;

use crate::world::{Answer, History, Kind, World, at, day, on_both_stores, order};

on_both_stores!(
    pages_walk_everything_exactly_once_newest_first,
    a_page_survives_orders_that_come_while_it_is_read,
    filters_narrow_and_combine,
    lists_are_sorted_by_time_or_total_and_walked_either_way,
    orders_are_counted_on_request,
    a_changed_basket_is_found_by_what_is_in_it_now,
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

async fn lists_are_sorted_by_time_or_total_and_walked_either_way(kind: Kind) {
    let mut world = many(kind).await;
    let yen = History::new(order(500), day(1)).created("customer-9", "JPY", &[("even", 1, "100")]);
    world.happen(&yen.events).await;
    let created = "&created_from=2026-11-02T12:00:00Z&created_to=2026-11-04T12:00:00Z";
    let filters =
        ["", "&sku=odd", "&customer_id=customer-1", "&status=PAID&sku=even", "&min_total=50&max_total=200", created];
    for filter in filters {
        for (up, down) in [("created_at", "-created_at"), ("total", "-total")] {
            let mut ascending = walk(&world, &format!("/orders?limit=4&sort={up}{filter}")).await;
            let descending = walk(&world, &format!("/orders?limit=3&sort={down}{filter}")).await;
            ascending.reverse();
            assert_eq!(ascending, descending, "{up} {filter}");
            assert_eq!(descending.iter().collect::<BTreeSet<_>>().len(), descending.len());
        }
    }
    assert_eq!(walk(&world, "/orders?limit=4&sort=created_at").await.len(), 26);
    for sort in ["created_at", "-created_at", "total", "-total"] {
        assert_eq!(walk(&world, &format!("/orders?limit=2&sort={sort}{created}")).await.len(), 15, "{sort}");
    }
    // Amounts of different currencies have no order.
    let by_total = world.get("/orders?sort=-total").await.json();
    let totals: Vec<_> = by_total.as_array().unwrap().iter().map(|order| order["total"].as_f64().unwrap()).collect();
    assert!(totals.len() == 25 && totals.is_sorted_by(|dearer, cheaper| dearer >= cheaper), "{totals:?}");
    assert_eq!(walk(&world, "/orders?sort=total&currency=JPY").await.len(), 1);

    let first = world.get("/orders?sort=total&limit=2").await;
    let link = first.headers["link"].to_str().unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    world.get(&link.replace("sort=total", "sort=created_at")).await.assert_problem(400, "invalid-cursor");
    world.get("/orders?sort=customer_id").await.assert_problem(400, "invalid-query");
}

async fn orders_are_counted_on_request(kind: Kind) {
    let world = many(kind).await;
    let count = async |query: &str| {
        let answer = world.get(&format!("/orders?limit=1&{query}")).await;
        answer.headers.get("x-total-count").map(|count| count.to_str().unwrap().to_owned())
    };
    assert_eq!(count("count=false").await, None);
    for (query, expected) in [
        ("count=true", "25"),
        ("count=true&sku=odd", "12"),
        ("count=true&customer_id=customer-1&sku=odd", "4"),
        ("count=true&status=PAID&sort=total", "13"),
        ("count=true&sku=none", "0"),
    ] {
        assert_eq!(count(query).await.as_deref(), Some(expected), "{query}");
    }
}

async fn a_changed_basket_is_found_by_what_is_in_it_now(kind: Kind) {
    let mut world = World::new(kind).await;
    let history = History::new(order(1), day(1))
        .created("customer-1", "USD", &[("a", 1, "1.00"), ("b", 1, "1.00")])
        .changed("USD", &[("b", 2, "1.00"), ("c", 1, "1.00")])
        .changed("USD", &[("a", 2, "1.00")]);
    let mut found = Vec::new();
    for event in &history.events {
        world.happen(std::slice::from_ref(event)).await;
        for sku in ["a", "b", "c"] {
            found.push(ids(&world.get(&format!("/orders?sku={sku}")).await).len());
        }
    }
    assert_eq!(found, [1, 1, 0, 0, 1, 1, 1, 0, 0]);
    // In one batch, what came and went was never there.
    let again = History::new(order(2), day(1)).created("customer-1", "USD", &[("d", 1, "1.00")]);
    world.happen(&again.changed("USD", &[("e", 1, "1.00")]).changed("USD", &[("d", 1, "1.00")]).events).await;
    assert_eq!(world.count("select count(*) from order_products").await, 2);
}

#[tokio::test]
async fn a_file_of_an_earlier_release_gets_its_lists_from_its_documents() {
    let mut world = many(Kind::Sqlite).await;
    let changed = History::new(order(100), day(7)).created("customer-1", "JPY", &[("gone", 1, "1"), ("kept", 1, "1")]);
    world.happen(&changed.changed("JPY", &[("kept", 2, "1"), ("new", 1, "5")]).events).await;
    let before = world.dump().await;
    let back = "drop table order_products; drop index orders_in_status; drop index orders_by_total; \
        drop index dead_letters_newest; delete from sqlite_stat1; delete from _sqlx_migrations where version = 4";
    world.tamper(back, "").await;
    let world = world.restarted(Brokers("127.0.0.1:1".into()), "orders.events").await;
    assert_eq!(world.dump().await, before);
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
