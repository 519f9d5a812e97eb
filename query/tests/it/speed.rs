//! Projects a fair number of events through the real path, so that a change that makes it crawl is seen at once.

use std::time::Instant;

use domain::OrderId;
use uuid::Uuid;

use crate::world::{History, Kind, World, day, on_both_stores};

on_both_stores!(ten_thousand_events_are_projected,);

const ORDERS: u64 = 2_500;
const BATCH: usize = 2_000;

async fn ten_thousand_events_are_projected(kind: Kind) {
    let mut world = World::new(kind).await;
    let mut records = Vec::new();
    for n in 0..ORDERS {
        let order = OrderId(Uuid::now_v7());
        let history = History::new(order, day(1 + u32::try_from(n % 28).unwrap()))
            .created(&format!("customer-{}", n % 500), "USD", &[("prod-1", 2, "15.00"), ("prod-2", 1, "12.50")])
            .paid("42.50", "USD")
            .shipped()
            .delivered();
        records.extend(history.events.iter().map(|event| world.record(event)));
    }
    let (events, started) = (records.len(), Instant::now());
    while !records.is_empty() {
        let rest = records.split_off(records.len().min(BATCH));
        world.apply(std::mem::replace(&mut records, rest)).await;
    }
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(world.count("select count(*) from order_history").await, 10_000);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = events as f64 / seconds;
    println!("{events} events in {seconds:.2} s: {rate:.0} events/s");
}
