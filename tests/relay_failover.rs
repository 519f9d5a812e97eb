use std::collections::HashSet;
use std::time::Duration;

use chassis::testkit::eventually;
use nix::sys::signal::Signal;

use crate::world::client::TWO_AND_ONE;
use crate::world::load::Load;
use crate::world::process::Service;
use crate::world::topic::Position;
use crate::world::{SOON, World};

/// How soon a relay takes over from one that is gone: its lease lasts 3 s.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);

/// How many sessions of the command service the server has that are like this.
async fn sessions(world: &World, like: &str) -> i64 {
    let count = format!(
        "select count(*) from pg_stat_activity
         where datname = current_database() and application_name like 'order-command%' and {like}"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&world.log()).await.unwrap()
}

#[tokio::test]
async fn a_relay_killed_between_acknowledgement_and_saved_progress_only_repeats() {
    const ORDERS: usize = 20;
    let mut world = World::start().await;
    let alice = world.customer("alice");
    let first = alice.places(TWO_AND_ONE).await;
    world.sees(first).at(1).await;

    // Nobody can record any progress from here on.
    let mut obstacle = world.log().begin().await.unwrap();
    sqlx::query("lock table relay_progress in share row exclusive mode").execute(&mut *obstacle).await.unwrap();
    let mut orders = Vec::new();
    for _ in 0..ORDERS {
        orders.push(alice.places(TWO_AND_ONE).await);
    }
    eventually(SOON, "the relay has published and waits to record it", || async {
        let waiting = sessions(&world, "wait_event_type = 'Lock'").await;
        let published = world.topic.positions().await.len();
        if waiting > 0 && published > 1 { Ok(()) } else { Err(format!("{waiting} wait, {published} records")) }
    })
    .await;
    world.command.kill();
    // The server does not notice that its client is gone: what it was asked to record must give up before it may.
    eventually(SOON, "the server has forgotten the relay", || async {
        let left = sessions(&world, "true").await;
        if left == 0 { Ok(()) } else { Err(format!("{left} sessions")) }
    })
    .await;
    obstacle.rollback().await.unwrap();
    world.command.start().await;

    for order in &orders {
        world.sees(*order).at(1).await;
    }
    let published = world.topic.positions().await;
    let distinct: HashSet<Position> = published.iter().copied().collect();
    assert_eq!(distinct.len(), 1 + ORDERS, "nothing is lost");
    assert!(published.len() > distinct.len(), "the test has not hit the moment that it is about");
    world.figures_are_right().await;
    world.end().await;
}

/// A world without a relay in its command service, and two relays beside it.
async fn with_two_relays() -> (World, Service, Service) {
    let mut world = World::prepare().await;
    world.command.set("RELAY", "off");
    let (mut one, mut other) = (world.relay("relay-1"), world.relay("relay-2"));
    one.start().await;
    other.start().await;
    world.command.start().await;
    world.query.start().await;
    (world, one, other)
}

async fn owns(relay: &Service) -> bool {
    relay.metric("orders_relay_owner").await == Some(1.0)
}

/// The two, the one that publishes first.
async fn by_office(one: Service, other: Service) -> (Service, Service) {
    eventually(SOON, "exactly one relay publishes", || async {
        let owners = (owns(&one).await, owns(&other).await);
        if owners.0 != owners.1 { Ok(()) } else { Err(format!("{owners:?}")) }
    })
    .await;
    if owns(&one).await { (one, other) } else { (other, one) }
}

async fn takes_over(relay: &Service) {
    eventually(TAKEN_OVER_WITHIN, "the other relay takes over", || async {
        if owns(relay).await { Ok(()) } else { Err("it does not publish".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn one_of_two_relays_publishes_and_the_other_takes_over_when_it_is_killed() {
    let (world, one, other) = with_two_relays().await;
    let load = Load::begin(&world, 4);
    load.goes_on(50).await;
    let (mut owner, mut heir) = by_office(one, other).await;
    owner.kill();
    takes_over(&heir).await;
    load.goes_on(50).await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.is_clean().await;
    heir.drain().await;
    world.end().await;
}

#[tokio::test]
async fn a_relay_that_hands_over_in_order_is_followed_at_once() {
    let (world, one, other) = with_two_relays().await;
    let (mut owner, mut heir) = by_office(one, other).await;
    owner.drain().await;
    let order = world.customer("alice").places(TWO_AND_ONE).await;
    world.sees(order).at(1).await;
    // Who has published tells it at the end of the step.
    takes_over(&heir).await;
    world.is_clean().await;
    heir.drain().await;
    world.end().await;
}

#[tokio::test]
async fn a_frozen_relay_that_wakes_up_does_no_harm() {
    let (world, one, other) = with_two_relays().await;
    let load = Load::begin(&world, 4);
    load.goes_on(50).await;
    let (mut owner, mut heir) = by_office(one, other).await;
    owner.signal(Signal::SIGSTOP);
    takes_over(&heir).await;
    load.goes_on(50).await;
    owner.signal(Signal::SIGCONT);
    load.goes_on(50).await;
    eventually(SOON, "the one that was frozen knows that it is out of office", || async {
        if owns(&owner).await { Err("it does not".to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(owns(&heir).await);
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    world.is_clean().await;
    for relay in [&mut owner, &mut heir] {
        relay.drain().await;
    }
    world.end().await;
}
