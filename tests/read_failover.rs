use std::time::Duration;

use chassis::testkit::{TestDatabase, eventually};
use nix::sys::signal::Signal;
use query::store::postgres;

use crate::world::client::TWO_AND_ONE;
use crate::world::load::Load;
use crate::world::process::Service;
use crate::world::reads::Reads;
use crate::world::{SOON, World};

/// How soon a node takes over from one that is gone: its lease lasts 3 s.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);

async fn owns(reader: &Service) -> bool {
    reader.metric("orders_projection_owner").await == Some(1.0)
}

async fn takes_over(reader: &Service) {
    eventually(TAKEN_OVER_WITHIN, "the other node takes over", || async {
        if owns(reader).await { Ok(()) } else { Err("it does not project".to_owned()) }
    })
    .await;
}

/// Two readers on one PostgreSQL: the one that projects, and a world that reads from the other.
async fn with_two_readers() -> (World, Service, TestDatabase) {
    let database = TestDatabase::create(&postgres::MIGRATOR).await;
    let mut world = World::prepare().await;
    let mut other = Service::new(world.query_run("order-query-2", &["serve"]), world.http.clone());
    for reader in [&mut world.query, &mut other] {
        reader.set("QUERY_DATABASE_URL", database.url().expose());
    }
    world.command.start().await;
    world.query.start().await;
    other.start().await;
    eventually(SOON, "exactly one node projects", || async {
        let owners = (owns(&world.query).await, owns(&other).await);
        if owners.0 != owners.1 { Ok(()) } else { Err(format!("{owners:?}")) }
    })
    .await;
    if owns(&world.query).await {
        std::mem::swap(&mut world.query, &mut other);
    }
    (world, other, database)
}

#[tokio::test]
async fn a_reader_takes_over_from_one_that_is_killed() {
    let (world, mut owner, _database) = with_two_readers().await;
    let load = Load::begin(&world, 4);
    load.goes_on(50).await;
    owner.kill();
    takes_over(&world.query).await;
    load.goes_on(50).await;
    // It comes back to serve.
    owner.start().await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    assert!(!owns(&owner).await);
    owner.drain().await;
    world.end().await;
}

#[tokio::test]
async fn a_frozen_reader_that_wakes_up_does_no_harm() {
    let (world, mut owner, _database) = with_two_readers().await;
    let load = Load::begin(&world, 4);
    load.goes_on(50).await;
    owner.signal(Signal::SIGSTOP);
    takes_over(&world.query).await;
    load.goes_on(50).await;
    owner.signal(Signal::SIGCONT);
    load.goes_on(50).await;
    eventually(SOON, "the one that was frozen knows that it is out of office", || async {
        if owns(&owner).await { Err("it does not".to_owned()) } else { Ok(()) }
    })
    .await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    owner.drain().await;
    world.end().await;
}

#[tokio::test]
async fn a_reader_beside_it_takes_over_a_file() {
    let mut world = World::start().await;
    let mut other = Service::new(world.query_run("order-query-2", &["serve"]), world.http.clone());
    other.start().await;
    let load = Load::begin(&world, 2);
    load.goes_on(20).await;
    assert!(owns(&world.query).await && !owns(&other).await);
    // One that stands by answers what the other one writes, also once it has answered before.
    world.sees(world.customer("alice").places(TWO_AND_ONE).await).at(1).await;
    assert!(!Reads::of(&other, &world).orders().await.is_empty());
    world.query.kill();
    std::mem::swap(&mut world.query, &mut other);
    takes_over(&world.query).await;
    load.goes_on(20).await;
    // It comes back to serve.
    other.start().await;
    assert!(!Reads::of(&other, &world).orders().await.is_empty());
    load.goes_on(20).await;
    load.end().await;
    world.figures_are_right().await;
    world.is_caught_up(&other).await;
    assert_eq!(Reads::of(&other, &world).figures().await, world.reads().figures().await);
    assert!(!owns(&other).await);
    other.drain().await;
    world.end().await;
}

#[tokio::test]
async fn a_reader_that_drains_is_followed_at_once() {
    let (world, mut owner, _database) = with_two_readers().await;
    owner.drain().await;
    let order = world.customer("alice").places(TWO_AND_ONE).await;
    world.sees(order).at(1).await;
    takes_over(&world.query).await;
    world.end().await;
}
