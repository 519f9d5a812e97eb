use crate::world::World;
use crate::world::client::{Answer, TWO_AND_ONE};
use crate::world::fold::{CustomerFigures, DayFigures, ProductFigures};

#[tokio::test]
async fn an_order_is_changed_paid_shipped_and_delivered() {
    let world = World::start().await;
    let alice = world.customer("alice");

    let placed = alice.places(TWO_AND_ONE).await;
    let changed = alice.changes(placed, &[("prod-1", 1), ("something-new", 3)]).await;
    let paid = alice.pays(changed).await;
    let shipped = alice.is_shipped(paid).await;
    let delivered = alice.receives(shipped).await;
    assert_eq!(delivered.version, 5);

    let seen = world.sees(placed).at(5).await;
    assert_eq!(seen.json()["status"], "DELIVERED");
    // 15.00 and three of a kind that the catalogue does not have, at 10.00.
    assert!(seen.body.contains("\"total\":45.00"), "{}", seen.body);
    let history = world.reads().list(&format!("/orders/{}/history", placed.id)).await;
    let types: Vec<_> = history.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
    assert_eq!(types, ["OrderCreated", "OrderItemsChanged", "OrderPaid", "OrderShipped", "OrderDelivered"]);

    let late = Answer::to(alice.asks(placed.id, "pay", None)).await.unwrap().is(409);
    assert_eq!(late.problem(), "already-paid");
    world.end().await;
}

#[tokio::test]
async fn a_paid_order_that_is_cancelled_is_refunded_and_the_figures_follow() {
    let world = World::start().await;
    let (alice, bob) = (world.customer("alice"), world.customer("bob"));

    let kept = alice.places(TWO_AND_ONE).await;
    let kept = alice.pays(kept).await;
    let regretted = alice.places(&[("prod-2", 4)]).await;
    let regretted = alice.pays(regretted).await;
    let refunded = alice.cancels(regretted).await;
    assert_eq!(refunded.version, 4, "a cancellation and a refund");
    let dropped = bob.places(&[("prod-1", 7)]).await;
    let dropped = bob.cancels(dropped).await;
    assert_eq!(dropped.version, 2, "nothing to refund");

    for order in [kept, refunded, dropped] {
        world.sees(order).at(order.version).await;
    }
    let seen = world.sees(refunded).at(4).await;
    assert_eq!(seen.json()["status"], "CANCELLED");
    let figures = world.reads().figures().await;
    let alices = CustomerFigures { orders: 2, cancellations: 1, spend: 4250 };
    assert_eq!(figures.customers["alice"], alices);
    assert_eq!(figures.customers["bob"], CustomerFigures { orders: 1, cancellations: 1, spend: 0 });
    // Midnight may have come in between.
    let total = figures.days.values().fold(DayFigures::default(), |sum, day| DayFigures {
        orders: sum.orders + day.orders,
        cancellations: sum.cancellations + day.cancellations,
        revenue: sum.revenue + day.revenue,
    });
    assert_eq!(total, DayFigures { orders: 3, cancellations: 2, revenue: 4250 });
    assert_eq!(figures.products["prod-1"], ProductFigures { units: 2, revenue: 3000 });
    assert_eq!(figures.products["prod-2"], ProductFigures { units: 1, revenue: 1250 });
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn a_command_on_a_version_that_was_not_seen_is_refused() {
    let world = World::start().await;
    let alice = world.customer("alice");
    let placed = alice.places(TWO_AND_ONE).await;
    alice.changes(placed, &[("prod-1", 1)]).await;

    let stale = Answer::to(alice.asks(placed.id, "pay", None).header("if-match", "\"1\"")).await.unwrap().is(412);
    assert_eq!(stale.problem(), "version-mismatch");
    let fresh = Answer::to(alice.asks(placed.id, "pay", None).header("if-match", "\"2\"")).await.unwrap().is(200);
    assert_eq!(fresh.header("etag"), "\"3\"");
    world.end().await;
}
