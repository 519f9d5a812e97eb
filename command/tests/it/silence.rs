//! The way to the database stops carrying anything: callers hear in time, and service comes back by itself (rules R1, R2).

use std::time::{Duration, Instant};

use chassis::testkit::wire::{Newcomers, Wire};
use command::executor::{Failure, Limits};
use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;

use crate::world::{World, limits, new_order};

/// What a caller may wait beyond its deadline on a busy machine.
const SLACK: Duration = Duration::from_millis(500);

fn impatient() -> Limits {
    Limits { command_deadline: Duration::from_secs(2), flush_deadline: Duration::from_millis(800), ..limits() }
}

async fn world() -> (World, Wire) {
    let mut wire = None;
    let world = World::reached_by(impatient(), async |options: PgConnectOptions| {
        let to = Wire::to(options.get_host(), options.get_port()).await;
        let options = options.host("127.0.0.1").port(to.addr().port());
        wire = Some(to);
        options
    })
    .await;
    (world, wire.unwrap())
}

#[tokio::test]
async fn connections_that_go_silent_are_given_up_and_commands_are_done_once_on_new_ones() {
    let (world, wire) = world().await;
    for answer in join_all((0..8).map(|_| world.executor.execute(new_order("before")))).await {
        answer.unwrap();
    }
    wire.silence_present();
    let silenced = Instant::now();
    // The messages are in the wire and never arrive, or the connections are noticed first: both are known in time.
    for answer in join_all((0..8).map(|_| world.executor.execute(new_order("silenced")))).await {
        assert_eq!(answer.unwrap().reply.status, 201);
    }
    assert!(silenced.elapsed() < impatient().command_deadline, "{:?}", silenced.elapsed());
    assert_eq!(world.count("select count(*) from events").await, 16);
    world.assert_consistent().await;
}

#[tokio::test]
async fn nobody_waits_beyond_the_deadline_for_a_database_that_says_nothing() {
    let (world, wire) = world().await;
    world.executor.execute(new_order("before")).await.unwrap();
    wire.newcomers(Newcomers::Silent);
    wire.silence_present();
    // Of the first commands nobody knows whether the server has them; the others were never sent.
    for (customer, late) in [("in-doubt", impatient().flush_deadline), ("not-sent", Duration::ZERO)] {
        let asked = Instant::now();
        for answer in join_all((0..8).map(|_| world.executor.execute(new_order(customer)))).await {
            match answer.unwrap_err() {
                Failure::TimedOut => {}
                Failure::OutcomeUnknown if customer == "in-doubt" => {}
                other => panic!("{customer}: {other}"),
            }
        }
        let waited = asked.elapsed();
        assert!(waited < impatient().command_deadline + late + SLACK, "{customer}: {waited:?}");
    }

    wire.newcomers(Newcomers::Served);
    let back = Instant::now();
    while world.executor.execute(new_order("after")).await.is_err() {}
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
    assert_eq!(world.count("select count(*) from events where payload like '%not-sent%'").await, 0);
    world.assert_consistent().await;
}
