use crate::world::World;
use crate::world::load::Load;

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_doubled_by_kill_9() {
    const KILLS: usize = 4;
    const COMMANDS_BETWEEN: usize = 150;
    let mut world = World::start().await;
    let load = Load::begin(&world, 16);
    for _ in 0..KILLS {
        load.goes_on(COMMANDS_BETWEEN).await;
        world.command.kill();
        world.command.launch();
    }
    load.goes_on(COMMANDS_BETWEEN).await;
    let acknowledged = load.end().await;

    world.has_exactly(&acknowledged).await;
    world.figures_are_right().await;
    world.end().await;
}
