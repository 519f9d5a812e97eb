use crate::world::World;
use crate::world::client::TWO_AND_ONE;
use crate::world::generations::{Kind, Watch, digest, operate, serves};
use crate::world::load::Load;
use crate::world::reads::Reads;

/// Commands before, during and after.
const COMMANDS: usize = 80;

async fn nobody_notices_a_rebuild(kind: Kind) {
    let (world, _database) = World::start_with(kind).await;
    let alice = world.customer("alice");
    let cancelled = alice.cancels(alice.places(TWO_AND_ONE).await).await;
    let load = Load::begin(&world, 3);
    load.goes_on(COMMANDS).await;
    world.sees(cancelled).at(2).await;
    let watch = Watch::begin(world.reads());

    let printed = operate(&world.query, &["rebuild"]).await;
    assert!(printed.starts_with("generation 2 is served: "), "{printed}");
    serves(&world.query, 2, 1).await;
    load.goes_on(COMMANDS).await;
    let mut acknowledged = load.end().await;
    acknowledged.orders.insert(cancelled.id, cancelled.version);
    world.reads_equal_the_log().await;
    let turns = watch.end().await;
    assert!(turns > 3, "everything was read only {turns} times");

    let operators = world.operators(&world.query);
    assert_eq!(operators.generations().await, (vec![1, 2], 2));
    world.has_exactly(&acknowledged).await;
    // Somebody who has read the topic once, into a file.
    let mut other = world.another_reader();
    other.start().await;
    world.is_caught_up(&other).await;
    assert_eq!(digest(&world.query).await, digest(&other).await);
    assert_eq!(Reads::of(&other, &world).figures().await, world.reads().figures().await);
    other.drain().await;
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn nobody_notices_a_rebuild_in_a_file() {
    nobody_notices_a_rebuild(Kind::Sqlite).await;
}

#[tokio::test]
async fn nobody_notices_a_rebuild_in_a_shared_database() {
    nobody_notices_a_rebuild(Kind::Postgres).await;
}
