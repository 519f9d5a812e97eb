use crate::world::World;
use crate::world::client::TWO_AND_ONE;

#[tokio::test]
async fn events_are_put_on_the_topic_again_while_everything_runs() {
    let world = World::start().await;
    let alice = world.customer("alice");
    let mut orders = Vec::new();
    for _ in 0..3 {
        orders.push(alice.pays(alice.places(TWO_AND_ONE).await).await);
    }
    for order in &orders {
        world.sees(*order).at(2).await;
    }

    let said = |(code, output, errors): (Option<i32>, String, String)| {
        assert_eq!(code, Some(0), "{output}{errors}");
        output
    };
    let all = said(world.chore(&["republish", "--all"]).await);
    assert!(all.contains("republished 6 events"), "{all}");
    let one = said(world.chore(&["republish", "--order", &orders[0].id.to_string()]).await);
    assert!(one.contains("republished 2 events"), "{one}");
    let none = said(world.chore(&["republish", "--to", "2020-01-01T00:00:00Z"]).await);
    assert!(none.contains("republished 0 events"), "{none}");
    let whole = said(world.chore(&["reconcile"]).await);
    assert!(whole.contains("restored 0 events"), "{whole}");

    // The relay is back in office, and the repeats changed nothing.
    let late = alice.places(TWO_AND_ONE).await;
    world.sees(late).at(1).await;
    let report = said(world.chore(&["check"]).await);
    assert!(report.contains("15 records, 8 of them repeats"), "{report}");
    world.end().await;
}
