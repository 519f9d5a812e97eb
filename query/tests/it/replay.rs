//! Any interleaving of the partitions, with any repeats, in batches of any size, ends in the same read model (R12).

use domain::order::{DraftLine, OrderCommand};
use domain::{Decider as _, EventId, Order, OrderEvent, Recorded, Version, fold};
use proptest::prelude::*;
use proptest::test_runner::Config;
use query::intake::Record;
use serde_json::Value;

use crate::world::{Kind, World, day, money, order};

fn command() -> impl Strategy<Value = OrderCommand> {
    prop_oneof![
        (1..4_u32, 0..3_usize).prop_map(|(quantity, sku)| OrderCommand::ChangeItems { lines: lines(quantity, sku) }),
        Just(OrderCommand::Pay { payment_reference: None }),
        Just(OrderCommand::Pay { payment_reference: Some("p".into()) }),
        Just(OrderCommand::Ship { carrier: None, tracking_number: None }),
        Just(OrderCommand::Deliver),
        Just(OrderCommand::Cancel { reason: "because".into() }),
    ]
}

fn lines(quantity: u32, sku: usize) -> Vec<DraftLine> {
    let sku = ["a", "b", "c"][sku].parse().unwrap();
    vec![DraftLine { sku, quantity, unit_price: Some(money("9.99", "USD")) }]
}

/// The events of one order: whatever its rules make of the commands.
fn history(n: u128, commands: &[OrderCommand]) -> Vec<Recorded<OrderEvent>> {
    let order_id = order(n);
    let at = day(1 + u32::try_from(n % 5).unwrap());
    let customer_id = format!("customer-{}", n % 2).parse().unwrap();
    let create = OrderCommand::Create { customer_id, lines: lines(2, 0), at };
    let mut events: Vec<OrderEvent> = Order::decide(&Order::Absent, create).unwrap();
    for command in commands {
        let state = fold::<Order>(&events);
        events.extend(Order::decide(&state, command.clone()).unwrap_or_default());
    }
    let recorded = |(version, event): (u32, OrderEvent)| {
        let version = Version(version);
        Recorded { event_id: EventId::derived(order_id, version), order_id, version, occurred_at: at, event }
    };
    (1..).zip(events).map(recorded).collect()
}

/// Applies each partition's records in its order, choosing the next partition by `choices`, which also tell where a
/// record is repeated and where a batch ends.
async fn play(kind: Kind, partitions: &[Vec<Record>], choices: &[u8]) -> Vec<Value> {
    let mut world = World::new(kind).await;
    let mut read: Vec<usize> = vec![0; partitions.len()];
    let mut batch = Vec::new();
    let mut choices = choices.iter().cycle();
    loop {
        let open: Vec<_> = (0..partitions.len()).filter(|at| read[*at] < partitions[*at].len()).collect();
        let Some(count) = std::num::NonZero::new(open.len()) else { break };
        let choice = usize::from(*choices.next().unwrap());
        let at = open[choice % count];
        batch.push(partitions[at][read[at]].clone());
        if choice % 7 == 0 {
            let earlier = choice % (read[at] + 1);
            batch.push(partitions[at][earlier].clone());
        }
        read[at] += 1;
        if choice % 5 == 0 {
            world.apply(std::mem::take(&mut batch)).await;
        }
    }
    world.apply(batch).await;
    assert_eq!(world.count("select count(*) from parked").await, 0);
    assert_eq!(world.count("select count(*) from dead_letters").await, 0);
    world.dump().await
}

/// Plays the orders in order into SQLite, and shuffled into a store of this kind: the rows must be the same.
fn ends_the_same(kind: Kind, orders: &[Vec<OrderCommand>], choices: &[u8]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut writer = World::new(Kind::Sqlite).await;
        let mut partitions = vec![Vec::new(); 3];
        for (n, commands) in (0..).zip(orders) {
            for event in history(n, commands) {
                let record = writer.record(&event);
                partitions[usize::try_from(record.position.partition).unwrap()].push(record);
            }
        }
        let in_order = play(Kind::Sqlite, &partitions, &[1]).await;
        let shuffled = play(kind, &partitions, choices).await;
        assert_eq!(in_order, shuffled);
    });
}

fn lives() -> impl Strategy<Value = Vec<Vec<OrderCommand>>> {
    prop::collection::vec(prop::collection::vec(command(), 0..6), 1..12)
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 8..64)
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_interleaving_with_repeats_ends_the_same_in_sqlite(orders in lives(), choices in choices()) {
        ends_the_same(Kind::Sqlite, &orders, &choices);
    }
}

proptest! {
    // Each case makes a database.
    #![proptest_config(Config { cases: 6, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_interleaving_with_repeats_ends_the_same_in_postgres(orders in lives(), choices in choices()) {
        ends_the_same(Kind::Postgres, &orders, &choices);
    }
}
