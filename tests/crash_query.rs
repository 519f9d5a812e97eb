use crate::world::World;
use crate::world::load::Load;

#[tokio::test]
async fn figures_are_exact_after_kill_9() {
    const KILLS: usize = 4;
    const COMMANDS_BETWEEN: usize = 150;
    let mut world = World::start().await;
    let load = Load::begin(&world, 8);
    for _ in 0..KILLS {
        load.goes_on(COMMANDS_BETWEEN).await;
        world.query.kill();
        // It comes back to work: no rest between two kills until it has moved on.
        world.query.start().await;
    }
    load.goes_on(COMMANDS_BETWEEN).await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn readers_find_what_was_placed_while_the_query_service_was_away() {
    let mut world = World::start().await;
    world.query.kill();
    let order = world.customer("alice").places(crate::world::client::TWO_AND_ONE).await;
    world.query.start().await;
    world.sees(order).at(1).await;
    world.end().await;
}

#[tokio::test]
async fn a_backlog_is_caught_up_exactly_through_kill_9() {
    const KILLS: usize = 5;
    const BACKLOG: usize = 4_000;
    let mut world = World::start().await;
    world.query.kill();
    let load = Load::begin(&world, 16);
    load.goes_on(BACKLOG).await;
    for _ in 0..KILLS {
        world.query.start().await;
        world.query.kill();
    }
    world.query.start().await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    world.end().await;
}
