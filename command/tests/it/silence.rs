//! The way to the database stops carrying anything: callers hear in time, and service comes back by itself (rules R1, R2).

use std::time::{Duration, Instant};

use chassis::testkit::eventually;
use chassis::testkit::wire::{Newcomers, Wire};
use command::executor::{Failure, Limits};
use command::relay::{Error, Relay, Setup, Step};
use futures_util::future::join_all;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use crate::relay::{place, setup};
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

#[tokio::test]
async fn a_relay_whose_database_goes_silent_gives_up_and_goes_on_where_it_was() {
    let (world, wire) = world().await;
    let setup = setup(&world).await;
    let mut relay = Relay::new(setup.clone());
    place(&world, 5).await;
    assert_eq!(relay.step().await.unwrap(), Step::Published(5));
    wire.silence_present();
    let silenced = Instant::now();
    assert!(matches!(relay.step().await.unwrap_err(), Error::Silent { .. }));
    assert!(silenced.elapsed() < Duration::from_secs(7), "{:?}", silenced.elapsed());
    let report = setup.status.report();
    assert!(!report.in_office && report.failing.is_some(), "{report:?}");

    place(&world, 3).await;
    // Its own lease has to run out first, as anybody else's would.
    let mut published = 0;
    while published == 0 {
        assert!(silenced.elapsed() < Duration::from_secs(20), "it does not publish again");
        if let Ok(Step::Published(events)) = relay.step().await {
            published = events;
        }
    }
    assert_eq!(published, 3);
    assert_eq!(setup.status.report().failing, None);
}

#[tokio::test]
async fn a_relay_that_is_told_to_stop_does_not_wait_for_a_database_that_says_nothing() {
    let (world, wire) = world().await;
    let setup = setup(&world).await;
    let (mut relay, stop) = (Relay::new(setup.clone()), CancellationToken::new());
    assert_eq!(relay.step().await.unwrap(), Step::Idle);
    let running = tokio::spawn(relay.run(stop.clone()));
    wire.newcomers(Newcomers::Silent);
    wire.silence_present();
    let told = Instant::now();
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
}

#[tokio::test]
async fn a_relay_that_is_told_to_stop_gives_its_lease_back_when_its_broker_says_nothing() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let broker = Wire::to("127.0.0.1", 1).await;
    broker.newcomers(Newcomers::Silent);
    let brokers = chassis::kafka::Brokers(broker.addr().to_string());
    let relay = Relay::new(Setup { brokers, ..setup.clone() });
    let stop = CancellationToken::new();
    let running = tokio::spawn(relay.run(stop.clone()));
    let held = "select count(*) from relay_lease where expires_at > now()";
    eventually(Duration::from_secs(5), "it takes the lease, and asks its broker", || async {
        if world.count(held).await == 1 && broker.arrived() > 0 { Ok(()) } else { Err("not yet") }
            .map_err(str::to_owned)
    })
    .await;
    let told = Instant::now();
    stop.cancel();
    running.await.unwrap().unwrap();
    assert!(told.elapsed() < Duration::from_secs(2), "{:?}", told.elapsed());
    assert_eq!(world.count(held).await, 0, "the lease is given back");
}
