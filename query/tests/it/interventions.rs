//! What an operator can do about what was not applied (rules R10): on any node, remembered, all or nothing.

use std::time::Duration;

use chassis::testkit::eventually;
use domain::{EventId, OrderEvent, Recorded, schema};
use query::intake::Record;
use query::projector::Step;
use query::store::open;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::desk::{path_of_letter, path_of_parked, post};
use crate::topic::Topic;
use crate::world::{Kind, Node, Place, World, get, on_both_stores, order, whole_life};

on_both_stores!(
    a_dead_letter_that_is_understood_now_is_applied,
    all_dead_letters_are_tried_oldest_first_and_in_pages,
    a_discarded_dead_letter_does_not_come_back,
    a_parked_order_is_judged_afresh,
    contradicting_events_are_not_chosen_between,
    discarding_one_of_two_contradicting_events_lets_the_order_go_on,
    a_discarded_event_does_not_come_back_and_its_version_is_not_skipped,
    a_wish_and_its_outcome_are_one_transaction,
    a_wish_that_cannot_be_granted_is_told_and_holds_nothing_up,
    what_is_unknown_or_unreasoned_is_refused,
    a_running_projector_grants_at_once,
);

const SOON: Duration = Duration::from_secs(20);

/// The event as another one of the same version.
fn contradicting(event: &Recorded<OrderEvent>) -> Recorded<OrderEvent> {
    Recorded { event_id: EventId::derived(order(99), event.version), ..event.clone() }
}

/// A record that this program does not understand, until the rows are [`mended`].
fn garbled(world: &mut World, event: &Recorded<OrderEvent>) -> Record {
    let text = schema::encode(event).unwrap().replace("\"order_id\"", "\"order_ix\"");
    world.message(event.order_id, text)
}

/// As if a program of the future, which can read them, were started over the same letters.
async fn mended(world: &World) {
    world
        .tamper(
            "update dead_letters set payload = cast(replace(cast(payload as text), '\"order_ix\"', '\"order_id\"') as blob)",
            "update dead_letters set payload = \
             convert_to(replace(convert_from(payload, 'UTF8'), '\"order_ix\"', '\"order_id\"'), 'UTF8')",
        )
        .await;
}

async fn status(world: &World, n: u128) -> Value {
    world.get(&format!("/orders/{}", order(n))).await.json()["status"].clone()
}

async fn a_dead_letter_that_is_understood_now_is_applied(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let garbled = garbled(&mut world, &events[0]);
    world.apply(vec![garbled]).await;
    world.happen(&events[1..]).await;
    let listed = world.listed("/dead-letters").await;
    let path = path_of_letter(&listed[0]);
    let whole = get(&world.admin, &path, &[]).await.json();
    assert_eq!(whole["headers"][0], json!(["ce_actor", "alice"]));

    // The same program understands no more than before.
    let outcome = world.wish(&format!("{path}/retry")).await;
    assert_eq!((&outcome["looked_at"], &outcome["set_aside"], &outcome["applied"]), (&1.into(), &1.into(), &0.into()));
    mended(&world).await;
    let outcome = world.wish(&format!("{path}/retry")).await;
    assert_eq!((&outcome["looked_at"], &outcome["set_aside"], &outcome["applied"]), (&1.into(), &0.into(), &4.into()));
    assert_eq!(status(&world, 1).await, "DELIVERED");
    assert_eq!(world.count("select count(*) from dead_letters").await, 0);
    assert_eq!(world.count("select count(*) from parked").await, 0);
    post(&world.admin, &format!("{path}/retry"), None).await.assert_problem(404, "unknown-dead-letter");
    // Changes that no record brought about are told, each at a place of its own.
    assert_eq!(world.count("select count(*) from changes").await, 4);
    world.happen(&whole_life(2)).await;
    assert_eq!(world.count("select count(*) from changes").await, 8);
}

async fn all_dead_letters_are_tried_oldest_first_and_in_pages(kind: Kind) {
    const LIVES: u128 = 60;
    let mut world = World::new(kind).await;
    let mut records = Vec::new();
    for n in 1..=LIVES {
        for event in whole_life(n) {
            records.push(garbled(&mut world, &event));
        }
    }
    let hopeless = world.message(order(1), "garbage".into());
    records.insert(3, hopeless);
    world.apply(records).await;
    mended(&world).await;
    let asked = post(&world.admin, "/dead-letters/retry", None).await;
    assert_eq!(world.grant_all().await, 2, "one page, and the rest");
    let told = get(&world.admin, asked.headers["location"].to_str().unwrap(), &[]).await.json();
    let outcome = &told["outcome"];
    assert_eq!((&outcome["looked_at"], &outcome["applied"]), (&241.into(), &240.into()), "{told}");
    // In the order in which they stood: nothing had to wait for an earlier one.
    assert_eq!((&outcome["waiting"], &outcome["set_aside"]), (&0.into(), &1.into()), "{told}");
    assert_eq!(world.listed("/dead-letters").await.len(), 1);
    let mut plain = World::new(kind).await;
    for n in 1..=LIVES {
        plain.happen(&whole_life(n)).await;
    }
    assert_eq!(world.dump().await, plain.dump().await);
}

async fn a_discarded_dead_letter_does_not_come_back(kind: Kind) {
    let mut world = World::new(kind).await;
    let mut wrongly_keyed = world.record(&whole_life(2)[0]);
    let key = wrongly_keyed.key.replace(order(7).to_string().into_bytes());
    let mut garbage = vec![world.message(order(1), "garbage".into()), wrongly_keyed];
    world.apply(garbage.clone()).await;
    let listed = world.listed("/dead-letters").await;
    let (kept, discarded) = if listed[0]["reason"] == "wrong-key" { (1, 0) } else { (0, 1) };
    let path = path_of_letter(&listed[discarded]);
    let outcome = world.discard(&path).await;
    assert_eq!(outcome["discarded"], 1);
    let left = world.listed("/dead-letters").await;
    assert_eq!((left.len(), &left[0]["digest"]), (1, &listed[kept]["digest"]));
    assert_eq!(world.get("/projection").await.json()["dead_letters"], 1);
    let discarded = world.listed("/dead-letters?discarded=true").await;
    assert_eq!((discarded.len(), &discarded[0]["discard_reason"]), (1, &"a test wrote it".into()));
    for what in ["retry", "discard"] {
        let again = post(&world.admin, &format!("{path}/{what}"), Some(json!({ "reason": "again" }))).await;
        again.assert_problem(404, "unknown-dead-letter");
    }
    let outcome = world.wish("/dead-letters/retry").await;
    assert_eq!(outcome["looked_at"], 1);

    // Read again from zero, by a program that would understand it.
    world = world.read_from_zero().await;
    garbage[1].key = key;
    let summary = world.apply(garbage).await;
    assert_eq!((summary.duplicates, summary.dead_letters), (1, 1));
    assert_eq!(world.listed("/dead-letters").await.len(), 1);
    assert_eq!(world.count("select count(*) from dead_letters").await, 2);
    assert_eq!(world.count("select count(*) from orders").await, 0);
}

async fn a_parked_order_is_judged_afresh(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let text = schema::encode(&events[1]).unwrap().replace("\"schema_version\":1", "\"schema_version\":9");
    let newer = world.message(order(1), text);
    world.happen(&events[..1]).await;
    world.apply(vec![newer]).await;
    world.happen(&[events[2..].to_vec(), whole_life(2)[2..].to_vec()].concat()).await;
    let path = format!("/parked/{}", order(1));
    let outcome = world.wish(&format!("{path}/retry")).await;
    assert_eq!((&outcome["looked_at"], &outcome["applied"], &outcome["waiting"]), (&3.into(), &0.into(), &3.into()));
    let upgrade = "update parked set message = replace(message, '\"schema_version\":9', '\"schema_version\":1')";
    world.tamper(upgrade, upgrade).await;
    // Both orders are looked at; one of them still has a hole.
    let outcome = world.wish("/parked/retry").await;
    assert_eq!((&outcome["looked_at"], &outcome["applied"], &outcome["waiting"]), (&5.into(), &3.into(), &2.into()));
    assert_eq!(status(&world, 1).await, "DELIVERED");
    post(&world.admin, &format!("{path}/retry"), None).await.assert_problem(404, "unknown-parked-event");
    get(&world.admin, &path, &[]).await.assert_problem(404, "unknown-parked-event");
}

async fn contradicting_events_are_not_chosen_between(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let other = contradicting(&events[2]);
    world.happen(&[events[0].clone(), events[2].clone(), other, events[3].clone()]).await;
    world.happen(&events[1..2]).await;
    // What stands before the contradiction was parked with it, and can be applied.
    let outcome = world.wish(&format!("/parked/{}/retry", order(1))).await;
    assert_eq!((&outcome["applied"], &outcome["waiting"]), (&1.into(), &3.into()));
    assert_eq!(world.count("select count(*) from parked where cause = 'fork'").await, 3);
    assert_eq!(status(&world, 1).await, "PAID");
    let outcome = world.wish("/parked/retry").await;
    assert_eq!((&outcome["applied"], &outcome["waiting"]), (&0.into(), &3.into()));
}

async fn discarding_one_of_two_contradicting_events_lets_the_order_go_on(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    // One contradicts what is applied, and one what waits.
    let (second, third) = (contradicting(&events[1]), contradicting(&events[2]));
    world
        .happen(&[events[..2].to_vec(), vec![second.clone()], events[2..].to_vec(), vec![third.clone()]].concat())
        .await;
    assert_eq!(world.count("select count(*) from parked").await, 4);
    for wrong in [&second, &third] {
        let digest = query::hex::encode(&schema::digest(schema::encode(wrong).unwrap().as_bytes()));
        let listed = world.listed("/parked").await;
        let listed = listed.iter().find(|listed| listed["digest"] == *digest).unwrap();
        let outcome = world.discard(&path_of_parked(listed)).await;
        assert_eq!(outcome["discarded"], 1);
    }
    assert_eq!(status(&world, 1).await, "DELIVERED");
    assert!(world.listed("/parked").await.is_empty());
    assert_eq!(world.get("/projection").await.json()["parked"], 0);
    assert_eq!(world.listed("/parked?discarded=true").await.len(), 2);
    let whole = get(&world.admin, &format!("/parked/{}", order(1)), &[]).await.json();
    assert_eq!((&whole[0]["discard_reason"], &whole[0]["cause"]), (&"a test wrote it".into(), &"fork".into()));

    // Everything read again from zero: known, all of it.
    let dump = world.dump().await;
    world = world.read_from_zero().await;
    let summary = world.happen(&[events, vec![second, third]].concat()).await;
    assert_eq!((summary.applied, summary.duplicates, summary.parked), (0, 6, 0));
    assert_eq!(world.dump().await, dump);
}

async fn a_discarded_event_does_not_come_back_and_its_version_is_not_skipped(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let wrong = contradicting(&events[2]);
    world.happen(&[events[0].clone(), wrong.clone(), events[3].clone()]).await;
    let listed = world.listed("/parked").await;
    let outcome = world.discard(&path_of_parked(&listed[0])).await;
    assert_eq!((&outcome["discarded"], &outcome["waiting"]), (&1.into(), &1.into()));
    let summary = world.happen(&[wrong.clone(), events[1].clone()]).await;
    assert_eq!((summary.applied, summary.duplicates), (1, 1), "the fourth still waits for a third");
    world = world.read_from_zero().await;
    let summary = world.happen(&[wrong, events[2].clone()]).await;
    assert_eq!((summary.applied, summary.duplicates), (2, 1));
    assert_eq!(status(&world, 1).await, "DELIVERED");
}

async fn a_wish_and_its_outcome_are_one_transaction(kind: Kind) {
    let mut world = World::new(kind).await;
    let events = whole_life(1);
    let wrong = contradicting(&events[1]);
    world.happen(&[events[..2].to_vec(), vec![wrong], events[2..].to_vec()].concat()).await;
    let listed = world.listed("/parked").await;
    let path = path_of_parked(listed.iter().find(|listed| listed["version"] == 2).unwrap());
    let asked = post(&world.admin, &format!("{path}/discard"), Some(json!({ "reason": "wrong" }))).await;
    let (dump, parked) = (world.dump().await, world.listed("/parked").await);

    // What came of it is written last.
    world
        .tamper(
            "create trigger trap before update on interventions begin select raise(abort, 'disk on fire'); end",
            "create function burn() returns trigger language plpgsql as $$ begin raise 'disk on fire'; end $$; \
             create trigger trap before update on interventions for each row execute function burn()",
        )
        .await;
    world.projector.intervene().await.unwrap_err();
    assert_eq!((world.dump().await, world.listed("/parked").await), (dump, parked));
    assert!(world.listed("/parked?discarded=true").await.is_empty());
    world.tamper("drop trigger trap", "drop trigger trap on interventions").await;
    world.grant_all().await;
    let told = get(&world.admin, asked.headers["location"].to_str().unwrap(), &[]).await.json();
    assert_eq!((&told["outcome"]["discarded"], &told["outcome"]["applied"]), (&1.into(), &2.into()), "{told}");
    assert_eq!(status(&world, 1).await, "DELIVERED");
}

async fn a_wish_that_cannot_be_granted_is_told_and_holds_nothing_up(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)[1..]).await;
    let asked = post(&world.admin, &format!("/parked/{}/retry", order(1)), None).await;
    let spoil = "update parked set cause = 'nonsense'";
    world.tamper(spoil, spoil).await;
    let unknown = "insert into interventions (id, kind, target, requested_at) values";
    let (sqlite, postgres) = match kind {
        Kind::Sqlite => (format!("{unknown} (x'{:032x}', 'undo-everything', 'null', 0)", 1), String::new()),
        Kind::Postgres => (String::new(), format!("{unknown} ('\\x{:032x}', 'undo-everything', 'null', 0)", 1)),
    };
    world.tamper(sqlite.leak(), postgres.leak()).await;
    assert_eq!(world.grant_all().await, 2);
    let told = get(&world.admin, asked.headers["location"].to_str().unwrap(), &[]).await.json();
    assert!(told["outcome"]["error"].as_str().unwrap().contains("a waiting event"), "{told}");
    let told = get(&world.admin, "/interventions", &[]).await.json();
    assert_eq!((told.as_array().unwrap().len(), &told[1]["kind"]), (2, &"undo-everything".into()));
    assert!(told[1]["outcome"]["error"].is_string(), "{told}");
    assert_eq!(world.happen(&whole_life(2)).await.applied, 4);
}

async fn what_is_unknown_or_unreasoned_is_refused(kind: Kind) {
    let mut world = World::new(kind).await;
    let garbage = world.message(order(1), "garbage".into());
    world.apply(vec![garbage]).await;
    world.happen(&whole_life(2)[1..]).await;
    let letter = path_of_letter(&world.listed("/dead-letters").await[0]);
    let parked = path_of_parked(&world.listed("/parked").await[0]);
    let zeros = "0".repeat(32);
    for path in [&letter, &parked] {
        for body in [None, Some(json!({})), Some(json!({ "reason": " " })), Some(json!({ "reason": "x".repeat(1001) }))]
        {
            post(&world.admin, &format!("{path}/discard"), body).await.assert_problem(400, "invalid-reason");
        }
        let body = Some(json!({ "reason": 7 }));
        post(&world.admin, &format!("{path}/discard"), body).await.assert_problem(422, "invalid-body");
    }
    let reason = Some(json!({ "reason": "why not" }));
    for (path, status, code) in [
        (format!("/dead-letters/other/0/1/{zeros}/discard"), 404, "unknown-dead-letter"),
        (format!("/dead-letters/other/zero/1/{zeros}/discard"), 400, "invalid-id"),
        ("/dead-letters/other/0/1/12/discard".to_owned(), 400, "invalid-id"),
        (format!("/parked/{}/2/{zeros}/discard", order(2)), 404, "unknown-parked-event"),
        (format!("/parked/{}/1/{zeros}/discard", order(7)), 404, "unknown-parked-event"),
        (format!("/parked/{}/x/{zeros}/discard", order(7)), 400, "invalid-id"),
        (format!("/parked/{}/retry", order(7)), 404, "unknown-parked-event"),
        ("/parked/nobody/retry".to_owned(), 400, "invalid-id"),
    ] {
        post(&world.admin, &path, reason.clone()).await.assert_problem(status, code);
    }
    let missing = format!("/interventions/{}", order(1));
    get(&world.admin, &missing, &[]).await.assert_problem(404, "unknown-intervention");
    get(&world.admin, "/interventions?limit=0", &[]).await.assert_problem(400, "invalid-query");
    assert_eq!(world.count("select count(*) from interventions").await, 0, "nothing of this was written down");
}

async fn a_running_projector_grants_at_once(kind: Kind) {
    let topic = Topic::made().await;
    topic.publish(&whole_life(1)[1..]).await;
    let world = topic.world(kind).await;
    let desk = open(&world.place.url()).await.unwrap().writer.desk();
    let admin = query::service::admin_router(query::admin::Admin::new(world.store.clone(), desk));
    let shutdown = CancellationToken::new();
    let World { projector, place: _place, keeper: _keeper, store, .. } = world;
    let running = tokio::spawn(projector.run(shutdown.clone()));
    eventually(SOON, "the events wait", || async {
        let waiting = store.parked(false, 10).await.unwrap().len();
        if waiting == 3 { Ok(()) } else { Err(format!("{waiting} wait")) }
    })
    .await;
    let told = post(&admin, &format!("/parked/{}/retry", order(1)), None).await;
    assert_eq!((told.status.as_u16(), &told.json()["outcome"]["looked_at"]), (200, &3.into()), "{told:?}");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn any_node_is_asked_and_the_one_that_projects_does_it() {
    let mut world = World::new(Kind::Postgres).await;
    let mut standby =
        Node::open(&world.place.url(), chassis::kafka::Brokers("127.0.0.1:1".into()), "orders.events").await;
    assert!(!standby.keeper.as_ref().unwrap().step().await.unwrap());
    let garbage = world.message(order(1), "garbage".into());
    world.apply(vec![garbage]).await;
    let path = path_of_letter(&get(&standby.router, "/dead-letters", &[]).await.json()[0]);
    let asked = post(&standby.admin, &format!("{path}/discard"), Some(json!({ "reason": "garbage" }))).await;
    assert_eq!(asked.status, 202);
    assert_eq!(standby.projector.step().await.unwrap(), Step::Standby);
    let location = asked.headers["location"].to_str().unwrap();
    assert!(get(&standby.admin, location, &[]).await.json()["done_at"].is_null());
    assert_eq!(world.grant_all().await, 1);
    let told = get(&standby.admin, location, &[]).await.json();
    assert_eq!((&told["outcome"]["discarded"], &told["reason"]), (&1.into(), &"garbage".into()));
    assert!(get(&standby.router, "/dead-letters", &[]).await.json().as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_file_that_stays_locked_takes_no_wish_and_says_so() {
    let mut world = World::new(Kind::Sqlite).await;
    world.happen(&whole_life(1)[1..]).await;
    let Place::Folder(_folder, raw) = &world.place else { panic!("not a file") };
    let lock = raw.begin_with("begin immediate").await.unwrap();
    let path = format!("/parked/{}/retry", order(1));
    let refused = post(&world.admin, &path, None).await;
    refused.assert_problem(503, "overloaded");
    assert_eq!(refused.json()["outcome"], "not-executed");
    lock.rollback().await.unwrap();
    assert_eq!(post(&world.admin, &path, None).await.status, 202);
}
