use uuid::Uuid;

use crate::world::World;
use crate::world::client::{Answer, TWO_AND_ONE};

#[tokio::test]
async fn a_placed_order_is_answered_published_and_read_back_to_the_cent() {
    let world = World::start().await;
    let customer = world.customer("customer-1");

    let placed = Answer::to(customer.asks_for(TWO_AND_ONE)).await.unwrap().is(201);
    let order = placed.order();
    assert_eq!(placed.header("content-type"), "application/json");
    assert_eq!(placed.header("location"), format!("/orders/{}", order.id));
    assert_eq!(placed.header("etag"), "\"1\"");
    assert_eq!(placed.json()["status"], "CREATED");
    assert_eq!(order.version, 1);
    assert!(placed.body.contains("\"total\":42.50"), "{}", placed.body);

    let seen = world.sees(order).at(1).await;
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.json()["customer_id"], "customer-1");
    assert_eq!(seen.json()["items"][0]["sku"], "prod-1");
    assert_eq!(seen.json()["items"][0]["quantity"], 2);
    assert!(seen.body.contains("\"total\":42.50"), "{}", seen.body);

    let published = world.topic.everything().await;
    let message = str::from_utf8(published[0].payload.as_deref().unwrap()).unwrap();
    assert!(message.contains("\"total\":42.50"), "{message}");
    world.end().await;
}

#[tokio::test]
async fn orders_are_listed_newest_first_and_page_by_page() {
    let world = World::start().await;
    let customer = world.customer("customer-1");
    let mut placed = Vec::new();
    for _ in 0..3 {
        placed.push(customer.places(TWO_AND_ONE).await);
    }
    for order in &placed {
        world.sees(*order).at(1).await;
    }
    let ids = |listed: &str| -> Vec<Uuid> {
        let listed: Vec<serde_json::Value> = serde_json::from_str(listed).unwrap();
        listed.iter().map(|order| order["order_id"].as_str().unwrap().parse().unwrap()).collect()
    };

    let all = world.reads().get("/orders").await.unwrap().is(200);
    assert_eq!(all.header("content-type"), "application/json");
    assert_eq!(all.header("link"), "", "there is no other page");
    let newest_first: Vec<Uuid> = placed.iter().rev().map(|order| order.id).collect();
    assert_eq!(ids(&all.body), newest_first);
    assert!(all.body.contains("\"total\":42.50"), "{}", all.body);

    let first = world.reads().get("/orders?limit=2").await.unwrap().is(200);
    assert_eq!(ids(&first.body), newest_first[..2]);
    let (next, rel) = first.header("link").split_once(">; ").unwrap();
    assert_eq!(rel, "rel=\"next\"");
    let rest = world.reads().get(next.trim_start_matches('<')).await.unwrap().is(200);
    assert_eq!(ids(&rest.body), newest_first[2..]);
    assert_eq!(rest.header("link"), "");
    world.end().await;
}

#[tokio::test]
async fn a_list_has_the_command_that_was_just_answered() {
    let world = World::start().await;
    let customer = world.customer("customer-1");
    for round in 1..=10_i64 {
        let paid = customer.pays(customer.places(TWO_AND_ONE).await).await;
        let asked = async |list: &str| {
            let url = format!("{}{list}after={}:{}", world.query.url(), paid.id, paid.version);
            // One question, no second try.
            Answer::to(world.http.get(url).header("prefer", "wait=10")).await.unwrap().is(200).json()
        };
        assert_eq!(asked("/orders?status=PAID&limit=1&").await[0]["order_id"], paid.id.to_string());
        assert_eq!(asked("/customers/customer-1?").await["orders"], round);
        let days = asked("/sales/daily?").await;
        let orders: Option<i64> = days.as_array().unwrap().iter().map(|day| day["orders"].as_i64()).sum();
        assert_eq!(orders, Some(round));
    }
    world.end().await;
}

#[tokio::test]
async fn what_does_not_exist_is_a_problem_of_either_service() {
    let world = World::start().await;
    let nobody = Uuid::now_v7();

    let unknown = world.reads().get(&format!("/orders/{nobody}")).await.unwrap().is(404);
    assert_eq!(unknown.problem(), "unknown-order");
    let nowhere = world.reads().get("/nowhere").await.unwrap().is(404);
    assert_eq!(nowhere.problem(), "not-found");
    let unpaid = Answer::to(world.customer("customer-1").asks(nobody, "pay", None)).await.unwrap().is(404);
    assert_eq!(unpaid.problem(), "unknown-order");
    assert_eq!(unpaid.json()["outcome"], "not-executed");
    world.end().await;
}
