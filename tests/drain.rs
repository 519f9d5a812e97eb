use chassis::testkit::eventually;
use nix::sys::signal::Signal;
use tokio::task::JoinSet;

use crate::world::client::{Answer, TWO_AND_ONE};
use crate::world::process::DRAINED_WITHIN;
use crate::world::{SOON, World};

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
