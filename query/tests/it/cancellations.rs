//! Why orders were given up, by day, customer and reason.

use crate::world::{History, Kind, World, day, on_both_stores, order};

on_both_stores!(
    reasons_are_counted_by_day_and_customer,
    filters_narrow_and_pages_walk_everything_once,
    what_anybody_may_write_fits_into_a_key,
);

/// Orders given up: who, on which day, why.
async fn given_up(kind: Kind, orders: &[(&str, u32, &str)]) -> World {
    let mut world = World::new(kind).await;
    for (n, (customer, on, reason)) in (1..).zip(orders) {
        let history = History::new(order(n), day(1)).created(customer, "USD", &[("prod-1", 1, "1.00")]);
        world.happen(&history.on(day(*on)).cancelled(reason).events).await;
    }
    world
}

const SIX: [(&str, u32, &str); 6] = [
    ("customer-1", 2, "late"),
    ("customer-1", 2, "late"),
    ("customer-1", 2, "dear"),
    ("customer-2", 2, "late"),
    ("customer-1", 3, "late"),
    ("customer-2", 5, "broken"),
];

async fn reasons_are_counted_by_day_and_customer(kind: Kind) {
    let mut world = given_up(kind, &SIX).await;
    // Refunded after it was given up, and never given up.
    let refunded =
        History::new(order(20), day(4)).created("customer-3", "JPY", &[("prod-1", 1, "100")]).paid("100", "JPY");
    world.happen(&refunded.cancelled("late").on(day(6)).refunded("100", "JPY").events).await;
    world.happen(&crate::world::whole_life(21)).await;
    let expected = r#"[{"day":"2026-11-02","customer_id":"customer-1","reason":"dear","orders":1},"#.to_owned()
        + r#"{"day":"2026-11-02","customer_id":"customer-1","reason":"late","orders":2},"#
        + r#"{"day":"2026-11-02","customer_id":"customer-2","reason":"late","orders":1},"#
        + r#"{"day":"2026-11-03","customer_id":"customer-1","reason":"late","orders":1},"#
        + r#"{"day":"2026-11-04","customer_id":"customer-3","reason":"late","orders":1},"#
        + r#"{"day":"2026-11-05","customer_id":"customer-2","reason":"broken","orders":1}]"#;
    assert_eq!(world.get("/cancellations").await.text, expected);
}

async fn filters_narrow_and_pages_walk_everything_once(kind: Kind) {
    let world = given_up(kind, &SIX).await;
    for (filter, rows) in [
        ("", 5),
        ("&customer_id=customer-1", 3),
        ("&customer_id=nobody", 0),
        ("&from=2026-11-03", 2),
        ("&to=2026-11-02", 3),
        ("&from=2026-11-03&to=2026-11-04&customer_id=customer-1", 1),
    ] {
        let whole = world.get(&format!("/cancellations?limit=200{filter}")).await.json();
        assert_eq!(whole.as_array().unwrap().len(), rows, "{filter}");
        for limit in 1..=3 {
            let (mut walked, mut next) = (Vec::new(), Some(format!("/cancellations?limit={limit}{filter}")));
            while let Some(path) = next {
                let page = world.get(&path).await;
                walked.extend(page.json().as_array().unwrap().clone());
                assert!(walked.len() <= rows, "a walk that goes in circles: {walked:?}");
                let link = page.headers.get("link").map(|link| link.to_str().unwrap().to_owned());
                next = link.map(|link| link.split(['<', '>']).nth(1).unwrap().to_owned());
            }
            assert_eq!(&walked, whole.as_array().unwrap(), "{filter} {limit}");
        }
    }
    for query in ["from=yesterday", "customer_id=", "reason=late", "limit=0"] {
        world.get(&format!("/cancellations?{query}")).await.assert_problem(400, "invalid-query");
    }
    for cursor in ["x", "", "AAAAAAAAAAA", "AAAAAAAAAAAA"] {
        world.get(&format!("/cancellations?cursor={cursor}")).await.assert_problem(400, "invalid-cursor");
    }
}

/// Letters of four bytes that do not repeat: what no database can compress.
fn letters(count: u32, seed: u32) -> String {
    let letter = |n: u32| char::from_u32(0x2_0000 + n.wrapping_mul(2_654_435_761) % 0xa000).unwrap();
    (seed..seed + count).map(letter).collect()
}

async fn what_anybody_may_write_fits_into_a_key(kind: Kind) {
    let (customer, reason) = (letters(128, 0), letters(60_000, 500));
    let orders = [(customer.as_str(), 2, reason.as_str()), ("c", 3, "nul \0, line\n, \"quote\""), ("c", 4, "")];
    let world = given_up(kind, &orders).await;
    let listed = world.get("/cancellations").await.json();
    let reasons: Vec<_> = listed.as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap()).collect();
    let first: String = reason.chars().take(500).collect();
    assert_eq!(reasons, [&first, "nul  , line , \"quote\"", ""]);
    // The longest key there is travels as a cursor too.
    let page = world.get("/cancellations?limit=1").await;
    let next = page.headers["link"].to_str().unwrap().split(['<', '>']).nth(1).unwrap().to_owned();
    assert_eq!(world.get(&next).await.json()[0]["day"], "2026-11-03");
}
