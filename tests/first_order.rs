use std::time::{Duration, Instant};

use crate::world::World;
use crate::world::client::TWO_AND_ONE;

/// How often a world is started, and how soon its first order must be visible, in the median.
const STARTS: usize = 5;
const VISIBLE_WITHIN: Duration = Duration::from_millis(100);

#[tokio::test]
async fn the_first_order_after_ready_is_visible_at_once() {
    let mut took = Vec::new();
    for _ in 0..STARTS {
        let world = World::start().await;
        let alice = world.customer("alice");
        let order = alice.places(TWO_AND_ONE).await;
        let answered = Instant::now();
        world.sees(order).at(1).await;
        took.push(answered.elapsed());
        world.end().await;
    }
    took.sort_unstable();
    assert!(took[STARTS / 2] <= VISIBLE_WITHIN, "visible after {took:?}");
}
