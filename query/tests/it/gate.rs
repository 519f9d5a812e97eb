//! Applied once, in order, and nothing skipped (rules R9, R10).

use domain::{OrderEvent, Recorded, Version, schema};
use query::intake::Record;
use query::projector::Summary;

use crate::world::{Kind, World, on_both_stores, order, whole_life};

on_both_stores!(
    repeated_events_change_nothing,
    an_event_waits_until_the_one_before_it_comes,
    a_hole_may_open_and_close_in_one_batch_or_before_the_first_event,
    contradicting_events_stop_their_order_and_no_other,
    a_contradiction_among_waiting_events_is_a_fork_too,
    what_a_newer_release_wrote_waits_for_the_upgrade_with_all_that_follows,
    a_newer_event_behind_a_hole_holds_up_only_what_follows_it,
    garbage_is_set_aside_with_its_reason_and_whatever_it_was,
);

/// The event as a release of the future would write it.
fn from_the_future(world: &mut World, event: &Recorded<OrderEvent>) -> Record {
    let text = schema::encode(event).unwrap().replace("\"schema_version\":1", "\"schema_version\":9");
    world.message(event.order_id, text)
}

/// What an upgrade does to messages that wait: this program understands them.
async fn upgrade(world: &World) {
    let statement = "update parked set message = replace(message, '\"schema_version\":9', '\"schema_version\":1')";
    world.tamper(statement, statement).await;
}

async fn repeated_events_change_nothing(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events).await;
    let before = world.dump().await;
    // Again, and twice within a batch, and an early one alone.
    let again = [events.clone(), events.clone(), events[..1].to_vec()].concat();
    let summary = world.happen(&again).await;
    assert_eq!(summary, Summary { duplicates: 9, ..Summary::default() });
    assert_eq!(world.dump().await, before);

    let twice = [whole_life(2), whole_life(2)].concat();
    let summary = world.happen(&twice).await;
    assert_eq!((summary.applied, summary.duplicates), (4, 4));
}

async fn an_event_waits_until_the_one_before_it_comes(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let summary = world.happen(&[events[0].clone(), events[2].clone(), events[3].clone()]).await;
    assert_eq!((summary.applied, summary.parked), (1, 2));
    let seen = world.get(&format!("/orders/{}", order(1))).await;
    assert_eq!(seen.json()["status"], "CREATED");
    assert_eq!(seen.json()["stale"], serde_json::json!({"cause": "hole", "waiting_since_version": 3}));
    assert_eq!(seen.headers["etag"], "W/\"1-stale\"");
    let parked = world.get("/parked").await.json();
    assert_eq!((&parked[0]["cause"], &parked[0]["version"]), (&"hole".into(), &3.into()));

    let shown = world.get("/projection").await.json();
    assert_eq!((&shown["parked"], &shown["dead_letters"]), (&2.into(), &0.into()));
    assert!(shown["oldest_parked_at"].is_string() && shown["oldest_dead_letter_at"].is_null(), "{shown}");

    // Others flow, and waiting is not counted twice.
    let summary = world.happen(&[whole_life(2), events[2..3].to_vec()].concat()).await;
    assert_eq!((summary.applied, summary.duplicates, summary.parked), (4, 1, 0));

    let summary = world.happen(&events[1..2]).await;
    assert_eq!(summary.applied, 3);
    let seen = world.get(&format!("/orders/{}", order(1))).await;
    assert_eq!((&seen.json()["status"], seen.json().get("stale")), (&"DELIVERED".into(), None));
    assert_eq!(world.count("select count(*) from parked").await, 0);
    // Replayed after it healed.
    assert_eq!(world.happen(&events).await.duplicates, 4);
}

async fn a_hole_may_open_and_close_in_one_batch_or_before_the_first_event(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let upside_down: Vec<_> = events.iter().rev().cloned().collect();
    assert_eq!(world.happen(&upside_down).await.applied, 4);
    for event in whole_life(2).iter().rev() {
        world.happen(std::slice::from_ref(event)).await;
        if event.version != Version::FIRST {
            let unknown = world.get(&format!("/orders/{}", order(2))).await;
            unknown.assert_problem(404, "unknown-order");
            assert_eq!(unknown.json()["stale"]["waiting_since_version"], event.version.0);
        }
    }
    assert_eq!(world.count("select count(*) from parked").await, 0);
    assert_eq!(world.count("select count(*) from orders where status = 'DELIVERED'").await, 2);
}

async fn contradicting_events_stop_their_order_and_no_other(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events[..2]).await;
    let mut other = events[1].clone();
    other.event_id = domain::EventId::derived(order(99), other.version);
    let summary = world.happen(&[vec![other], events[2..].to_vec(), whole_life(2)].concat()).await;
    assert_eq!((summary.applied, summary.parked), (4, 3));
    assert_eq!(world.count("select count(*) from parked where cause = 'fork'").await, 3);
    let seen = world.get(&format!("/orders/{}", order(1))).await.json();
    assert_eq!((&seen["status"], &seen["stale"]["cause"]), (&"PAID".into(), &"fork".into()));
    // What is known is still a duplicate; nothing heals by itself.
    let summary = world.happen(&events).await;
    assert_eq!((summary.applied, summary.duplicates, summary.parked), (0, 4, 0));
}

async fn a_contradiction_among_waiting_events_is_a_fork_too(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let mut other = events[2].clone();
    other.event_id = domain::EventId::derived(order(99), other.version);
    world.happen(&[events[0].clone(), events[2].clone(), other]).await;
    let summary = world.happen(&events[1..2]).await;
    assert_eq!((summary.applied, summary.parked), (0, 1), "which of the two follows cannot be known");
    assert_eq!(world.count("select count(*) from parked").await, 3);
}

async fn what_a_newer_release_wrote_waits_for_the_upgrade_with_all_that_follows(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    world.happen(&events[..1]).await;
    let newer = from_the_future(&mut world, &events[1]);
    let (shipped, delivered) = (world.record(&events[2]), world.record(&events[3]));
    let summary = world.apply(vec![newer.clone(), shipped, delivered]).await;
    assert_eq!((summary.applied, summary.parked, summary.dead_letters), (0, 3, 0));
    assert_eq!(world.count("select count(*) from parked where cause = 'newer'").await, 3);
    assert_eq!(world.happen(&whole_life(2)).await.applied, 4, "others flow");
    assert_eq!(world.apply(vec![newer]).await.duplicates, 1);

    assert_eq!(world.projector.retry_newer().await.unwrap().applied, 0, "the same program understands no more");
    upgrade(&world).await;
    assert_eq!(world.projector.retry_newer().await.unwrap().applied, 3);
    let seen = world.get(&format!("/orders/{}", order(1))).await.json();
    assert_eq!((&seen["status"], seen.get("stale")), (&"DELIVERED".into(), None));
    assert_eq!(world.count("select count(*) from parked").await, 0);
}

async fn a_newer_event_behind_a_hole_holds_up_only_what_follows_it(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let newer = from_the_future(&mut world, &events[2]);
    world.apply(vec![newer]).await;
    assert_eq!(world.happen(&[events[0].clone(), events[3].clone(), events[1].clone()]).await.applied, 2);
    let seen = world.get(&format!("/orders/{}", order(1))).await.json();
    assert_eq!((&seen["status"], &seen["stale"]["cause"]), (&"PAID".into(), &"newer".into()));
    upgrade(&world).await;
    assert_eq!(world.projector.retry_newer().await.unwrap().applied, 2);
}

async fn garbage_is_set_aside_with_its_reason_and_whatever_it_was(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let mut records = vec![
        world.message(order(1), "{".into()),
        world.message(order(1), schema::encode(&events[0]).unwrap().replace("42.50", "\"42.50\"")),
        world.message(order(7), schema::encode(&events[0]).unwrap()),
        // A history cannot begin with a payment.
        world.message(order(1), schema::encode(&events[1]).unwrap().replace("\"version\":2", "\"version\":1")),
        world.record(&events[0]),
    ];
    let mut tombstone = world.message(order(1), String::new());
    tombstone.payload = None;
    let mut binary = world.message(order(1), String::new());
    binary.payload = Some(vec![0xff, 0x00, 0xfe]);
    records.extend([tombstone, binary]);
    let summary = world.apply(records.clone()).await;
    assert_eq!((summary.applied, summary.dead_letters), (1, 6));
    let letters = world.get("/dead-letters").await.json();
    let mut reasons: Vec<_> =
        letters.as_array().unwrap().iter().map(|letter| letter["reason"].as_str().unwrap()).collect();
    reasons.sort_unstable();
    assert_eq!(reasons, ["no-value", "out-of-place", "unreadable", "unreadable", "unreadable", "wrong-key"]);
    let kept = match kind {
        Kind::Sqlite => "select count(*) from dead_letters where payload = x'FF00FE'",
        Kind::Postgres => "select count(*) from dead_letters where payload = '\\xFF00FE'::bytea",
    };
    assert_eq!(world.count(kept).await, 1);
    // Read again, after a start from zero, it is the same garbage.
    world.apply(records).await;
    assert_eq!(world.count("select count(*) from dead_letters").await, 6);
}
