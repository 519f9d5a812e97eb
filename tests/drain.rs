use std::time::Duration;

use chassis::testkit::eventually;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::world::broker::Broker;
use crate::world::client::{Answer, TWO_AND_ONE};
use crate::world::process::DRAINED_WITHIN;
use crate::world::{SOON, World};

/// How long a drain may take when the broker does not answer.
const DRAINED_WITHOUT_BROKER_WITHIN: Duration = Duration::from_secs(2);

#[tokio::test]
async fn every_request_in_flight_at_sigterm_is_answered_and_published() {
    const REQUESTS: usize = 100;
    let mut world = World::start().await;
    let alice = world.customer("alice");
    // No event can be written for a moment, so that all requests are in flight at once.
    let mut obstacle = world.log().begin().await.unwrap();
    sqlx::query("lock table events in share mode").execute(&mut *obstacle).await.unwrap();
    let mut requests = JoinSet::new();
    for _ in 0..REQUESTS {
        requests.spawn(Answer::to(alice.asks_for(TWO_AND_ONE)));
    }
    eventually(SOON, "all requests are in flight", || async {
        let active = world.command.metric("http_server_active_requests").await.unwrap_or_default();
        // The one that asks is in flight too.
        if active > REQUESTS as f64 { Ok(()) } else { Err(format!("{active} are")) }
    })
    .await;

    world.command.signal(Signal::SIGTERM);
    eventually(SOON, "it has begun to drain", || {
        let draining = world.command.log().contains("draining");
        std::future::ready(if draining { Ok(()) } else { Err("it has not".to_owned()) })
    })
    .await;
    obstacle.rollback().await.unwrap();

    while let Some(answer) = requests.join_next().await {
        answer.unwrap().unwrap().is(201);
    }
    let status = world.command.exit(DRAINED_WITHIN).await;
    assert!(status.success(), "{status}");
    assert_eq!(world.logged().await.len(), REQUESTS);
    let (code, report, _) = world.chore(&["check"]).await;
    assert_eq!(code, Some(0), "{report}");
    assert!(report.contains(" 0 not published yet"), "{report}");
    world.end().await;
}

#[tokio::test]
async fn a_service_that_drains_takes_no_new_requests_and_its_successor_takes_them() {
    let mut world = World::start().await;
    let alice = world.customer("alice");
    let before = alice.places(TWO_AND_ONE).await;
    world.command.drain().await;
    let refused = Answer::to(alice.asks_for(TWO_AND_ONE)).await.unwrap_err();
    assert!(refused.is_connect(), "{refused}");
    world.command.start().await;
    alice.pays(before).await;
    world.query.drain().await;
    world.query.start().await;
    world.sees(before).at(2).await;
    world.end().await;
}

#[tokio::test]
async fn a_drain_waits_for_no_broker_that_is_gone_or_frozen() {
    let mut broker = Broker::new();
    broker.launch();
    let mut world = World::prepare_on(broker.brokers()).await;
    world.command.start().await;
    world.query.start().await;
    let alice = world.customer("alice");
    let mut order = alice.places(TWO_AND_ONE).await;
    world.sees(order).at(1).await;

    broker.kill();
    order = alice.places(TWO_AND_ONE).await;
    both_drain(&mut world).await;
    broker.come_back();
    broker.answers(&world.topic.spec).await;
    world.command.start().await;
    world.query.start().await;
    world.sees(order).at(1).await;

    broker.freeze();
    order = alice.places(TWO_AND_ONE).await;
    both_drain(&mut world).await;
    broker.thaw();
    world.command.start().await;
    world.query.start().await;
    world.sees(order).at(1).await;
    world.end().await;
}

/// Both services end well and in time, and the lease is free.
async fn both_drain(world: &mut World) {
    for service in [&mut world.command, &mut world.query] {
        service.signal(Signal::SIGTERM);
        let status = service.exit(DRAINED_WITHOUT_BROKER_WITHIN).await;
        assert!(status.success(), "{status}");
    }
    let free: bool =
        sqlx::query_scalar("select expires_at <= now() from relay_lease").fetch_one(&world.log()).await.unwrap();
    assert!(free, "the lease was not given back");
}
