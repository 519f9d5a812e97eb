//! Sums per customer, day and product for a mixed history, exact in every currency.

use serde_json::json;

use crate::world::{History, Kind, World, day, on_both_stores, order, whole_life};

on_both_stores!(
    a_customer_has_orders_and_spend_per_currency,
    each_fact_counts_on_its_own_day,
    demand_is_what_is_ordered_and_not_cancelled,
    sums_outgrow_64_bits_exactly,
);

async fn mixed(kind: Kind) -> World {
    let mut world = World::new(kind).await;
    // 42.50 USD, kept.
    world.happen(&whole_life(1)).await;
    // Changed before it was paid; refunded three days later.
    let refunded = History::new(order(2), day(2))
        .created("customer-1", "USD", &[("prod-1", 1, "15.00")])
        .changed("USD", &[("prod-1", 3, "15.00"), ("prod-3", 1, "0.05")])
        .paid("45.05", "USD")
        .on(day(5))
        .cancelled("changed my mind")
        .refunded("45.05", "USD");
    world.happen(&refunded.events).await;
    // Given up before it was paid.
    let unpaid = History::new(order(3), day(2)).created("customer-2", "USD", &[("prod-2", 2, "12.50")]).cancelled("no");
    world.happen(&unpaid.events).await;
    // Other digits.
    let yen = History::new(order(4), day(3)).created("customer-1", "JPY", &[("prod-1", 2, "2100")]).paid("4200", "JPY");
    world.happen(&yen.events).await;
    let dinar =
        History::new(order(5), day(3)).created("customer-3", "BHD", &[("prod-1", 1, "42.5")]).paid("42.5", "BHD");
    world.happen(&dinar.events).await;
    world
}

async fn a_customer_has_orders_and_spend_per_currency(kind: Kind) {
    let world = mixed(kind).await;
    let customer = world.get("/customers/customer-1").await;
    assert!(customer.text.contains(r#""currency":"USD","amount":42.50,"#), "{}", customer.text);
    assert!(customer.text.contains(r#""currency":"JPY","amount":4200,"#), "{}", customer.text);
    let json = customer.json();
    assert_eq!((&json["orders"], &json["cancellations"]), (&json!(3), &json!(1)));
    assert_eq!(json["last_order_id"], json!(order(4)));
    let third = world.get("/customers/customer-3").await;
    assert!(third.text.contains(r#""currency":"BHD","amount":42.500,"#), "{}", third.text);
    world.get("/customers/nobody").await.assert_problem(404, "unknown-customer");
    world.get("/customers/%00").await.assert_problem(400, "invalid-id");

    let first = world.get("/customers?limit=2").await;
    let names = |answer: &crate::world::Answer| {
        let json = answer.json();
        json.as_array().unwrap().iter().map(|customer| customer["customer_id"].as_str().unwrap().to_owned()).collect()
    };
    let mut all: Vec<String> = names(&first);
    let link = first.headers["link"].to_str().unwrap();
    let rest = world.get(link.split(['<', '>']).nth(1).unwrap()).await;
    let more: Vec<String> = names(&rest);
    all.extend(more);
    assert_eq!(all, ["customer-1", "customer-2", "customer-3"]);
    assert!(!rest.headers.contains_key("link"));
}

async fn each_fact_counts_on_its_own_day(kind: Kind) {
    let world = mixed(kind).await;
    let sales = world.get("/sales/daily?currency=USD").await;
    let expected = r#"[{"day":"2026-11-01","currency":"USD","orders":1,"cancellations":0,"revenue":42.50},"#.to_owned()
        + r#"{"day":"2026-11-02","currency":"USD","orders":2,"cancellations":1,"revenue":45.05},"#
        + r#"{"day":"2026-11-05","currency":"USD","orders":0,"cancellations":1,"revenue":-45.05}]"#;
    assert_eq!(sales.text, expected);
    let third = world.get("/sales/daily?from=2026-11-03&to=2026-11-04").await;
    let expected = r#"[{"day":"2026-11-03","currency":"BHD","orders":1,"cancellations":0,"revenue":42.500},"#
        .to_owned()
        + r#"{"day":"2026-11-03","currency":"JPY","orders":1,"cancellations":0,"revenue":4200}]"#;
    assert_eq!(third.text, expected);
    let first = world.get("/sales/daily?limit=4").await;
    let link = first.headers["link"].to_str().unwrap().to_owned();
    let rest = world.get(link.split(['<', '>']).nth(1).unwrap()).await;
    assert_eq!(rest.json().as_array().unwrap().len(), 1);
    world.get("/sales/daily?from=yesterday").await.assert_problem(400, "invalid-query");
}

async fn demand_is_what_is_ordered_and_not_cancelled(kind: Kind) {
    let world = mixed(kind).await;
    let products = world.get("/products").await;
    let expected = r#"[{"sku":"prod-1","currency":"BHD","units":1,"revenue":42.500},"#.to_owned()
        + r#"{"sku":"prod-1","currency":"JPY","units":2,"revenue":4200},"#
        + r#"{"sku":"prod-1","currency":"USD","units":2,"revenue":30.00},"#
        + r#"{"sku":"prod-2","currency":"USD","units":1,"revenue":12.50},"#
        + r#"{"sku":"prod-3","currency":"USD","units":0,"revenue":0.00}]"#;
    assert_eq!(products.text, expected);
    let second = world.get("/products?sku=prod-2").await;
    assert_eq!(second.json().as_array().unwrap().len(), 1);
    let first = world.get("/products?limit=3").await;
    let link = first.headers["link"].to_str().unwrap().to_owned();
    let rest = world.get(link.split(['<', '>']).nth(1).unwrap()).await;
    assert_eq!(rest.json().as_array().unwrap().len(), 2);
}

async fn sums_outgrow_64_bits_exactly(kind: Kind) {
    let mut world = World::new(kind).await;
    for n in 0..3 {
        let most = History::new(order(n), day(1))
            .created("customer-1", "USD", &[("prod-1", 1, "92233720368547758.07")])
            .paid("92233720368547758.07", "USD");
        world.happen(&most.events).await;
    }
    let customer = world.get("/customers/customer-1").await;
    assert!(customer.text.contains(r#""amount":276701161105643274.21,"#), "{}", customer.text);
}
