use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::testkit::eventually;

use crate::world::client::TWO_AND_ONE;
use crate::world::load::Load;
use crate::world::reads::Reads;
use crate::world::{SOON, World};

/// Counts the orders that readers see, over and over. Returns how often it counted.
async fn never_sees_less(reads: Reads, stop: Arc<AtomicBool>) -> usize {
    let (mut most, mut counts) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let now = reads.orders().await.len();
        assert!(now >= most, "readers saw {most} orders, then {now}");
        most = now;
        counts += 1;
    }
    counts
}

/// Whoever is first makes it: the relay, or the operator who deleted it.
async fn is_made_anew_and_noticed(world: &World) {
    eventually(SOON, "the relay notices", || async {
        world.topic.make().await;
        let losses = world.command.metric("orders_relay_topic_losses_total").await;
        if losses >= Some(1.0) { Ok(()) } else { Err(format!("{losses:?} losses")) }
    })
    .await;
}

#[tokio::test]
async fn a_topic_deleted_and_made_anew_is_noticed_and_filled_while_orders_keep_coming() {
    let world = World::start().await;
    let load = Load::begin(&world, 2);
    load.goes_on(100).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(never_sees_less(world.reads(), Arc::clone(&stop)));

    eventually(SOON, "readers see what there is to lose", || async {
        let seen = world.reads().orders().await.len();
        if seen > 10 { Ok(()) } else { Err(format!("{seen} orders")) }
    })
    .await;
    world.topic.delete().await;
    is_made_anew_and_noticed(&world).await;
    load.goes_on(100).await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.is_clean().await;
    world.figures_are_right().await;
    assert_eq!(world.topic.out_of_order().await, []);
    stop.store(true, Ordering::Relaxed);
    let counts = watch.await.unwrap();
    assert!(counts > 10, "it was watched only {counts} times");
    // The projector has noticed, rather than being lucky.
    assert!(world.query.metric("orders_projection_restarts_from_zero_total").await >= Some(1.0));
    world.end().await;
}

#[tokio::test]
async fn a_topic_deleted_while_nobody_orders_is_filled_again() {
    let world = World::start().await;
    let alice = world.customer("alice");
    let placed = alice.places(TWO_AND_ONE).await;
    let paid = alice.pays(placed).await;
    world.sees(paid).at(2).await;
    world.topic.delete().await;
    // The relay looks by itself, now and then.
    is_made_anew_and_noticed(&world).await;
    world.is_clean().await;
    let shipped = alice.is_shipped(paid).await;
    world.sees(shipped).at(3).await;
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn a_topic_made_anew_under_load_tells_every_history_in_order_although_its_relay_is_killed_over_it() {
    const LITTLE: &str = "5";
    let mut world = World::prepare().await;
    // Small batches: filling the topic takes many of them, and the relay dies between two.
    world.command.set("RELAY_BATCH_EVENTS_MAX", LITTLE);
    world.command.start().await;
    world.query.start().await;
    let load = Load::begin(&world, 4);
    load.goes_on(400).await;
    world.topic.delete().await;
    for records in [1, 100] {
        eventually(SOON, "the topic is being filled", || async {
            world.topic.make().await;
            let held = world.topic.records().await;
            if held >= records { Ok(()) } else { Err(format!("{held} records")) }
        })
        .await;
        world.command.kill();
        world.command.start().await;
    }
    load.goes_on(100).await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.is_clean().await;
    assert_eq!(world.topic.out_of_order().await, []);
    world.figures_are_right().await;
    world.end().await;
}
