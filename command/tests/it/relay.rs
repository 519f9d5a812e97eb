//! The relay, step by step, on a real PostgreSQL and a real Kafka.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chassis::kafka::consumer::Consumer;
use chassis::kafka::{TopicSpec, topic};
use chassis::testkit::{self, eventually};
use command::check::{Kind, check};
use command::config::Selection;
use command::relay::reconcile::reconcile;
use command::relay::status::Status;
use command::relay::{Limits, Relay, Setup, Step};
use command::republish::republish;
use domain::OrderId;
use domain::order::OrderCommand;
use futures_util::future::join_all;
use sqlx::types::Uuid;
use sqlx::{ConnectOptions as _, Executor as _};

use crate::world::{World, command, new_order, usd};

pub(crate) const PARTITIONS: i32 = 3;
pub(crate) const HANDOVER: Duration = Duration::from_secs(10);

pub(crate) async fn setup(world: &World) -> Setup {
    let topic = TopicSpec { name: testkit::topic("relay"), partitions: PARTITIONS, replication: 1 };
    topic::ensure(&testkit::brokers(), &topic).await.unwrap();
    Setup {
        connect: world.connect.clone(),
        brokers: testkit::brokers(),
        topic,
        limits: Limits {
            batch_events_max: 100,
            acks_timeout: Duration::from_secs(10),
            poll: Duration::from_millis(5),
            topic_check: Duration::from_millis(100),
            outbox_keep_s: 3600,
        },
        owner: Uuid::now_v7().to_string(),
        committed: Arc::clone(&world.committed),
        status: Status::default(),
    }
}

pub(crate) fn another_owner(setup: &Setup) -> Setup {
    Setup { owner: Uuid::now_v7().to_string(), status: Status::default(), ..setup.clone() }
}

/// Steps until there is nothing to publish. Returns how many events were published.
pub(crate) async fn drain(relay: &mut Relay) -> usize {
    let mut published = 0;
    loop {
        match relay.step().await.unwrap() {
            Step::Published(events) => published += events,
            Step::Idle => return published,
            Step::NotOwner => panic!("another relay is in office"),
            Step::Refused => panic!("the topic is ahead of the log"),
        }
    }
}

pub(crate) async fn place(world: &World, orders: usize) -> Vec<OrderId> {
    let requests: Vec<_> = (0..orders).map(|n| new_order(&format!("customer-{n}"))).collect();
    let ids = requests.iter().map(|request| request.order_id).collect();
    for answer in join_all(requests.into_iter().map(|request| world.executor.execute(request))).await {
        answer.unwrap();
    }
    ids
}

pub(crate) async fn pay(world: &World, orders: &[OrderId]) {
    let pay = |id: &OrderId| command(*id, OrderCommand::Pay { payment_reference: None });
    for answer in join_all(orders.iter().map(|id| world.executor.execute(pay(id)))).await {
        assert_eq!(answer.unwrap().reply.status, 200);
    }
}

/// What a consumer sees: per order, the versions in the order of their offsets.
pub(crate) async fn versions(setup: &Setup) -> HashMap<String, Vec<u64>> {
    let ends = topic::end_offsets(&setup.brokers, &setup.topic.name, PARTITIONS).await.unwrap();
    let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
    for (partition, (low, high)) in (0..).zip(ends) {
        if low == high {
            continue;
        }
        let mut consumer = Consumer::assign(&setup.brokers, &setup.topic.name, &[(partition, low)], "test").unwrap();
        let mut next = low;
        while next < high {
            for message in consumer.poll_batch(1_000, Duration::from_millis(500)).await.unwrap() {
                next = message.offset + 1;
                let body: serde_json::Value = serde_json::from_slice(&message.payload.unwrap()).unwrap();
                let order_id = body["order_id"].as_str().unwrap().to_owned();
                assert_eq!(message.key.as_deref(), Some(order_id.as_bytes()));
                let header = |name: &str| {
                    let found = message.headers.iter().find(|(header, _)| header == name);
                    String::from_utf8(found.unwrap().1.clone()).unwrap()
                };
                assert_eq!(header("ce_id"), body["event_id"]);
                assert_eq!(header("ce_specversion"), "1.0");
                assert_eq!(header("ce_sequence"), body["version"].to_string());
                seen.entry(order_id).or_default().push(body["version"].as_u64().unwrap());
            }
        }
    }
    seen
}

pub(crate) async fn assert_agrees(setup: &Setup) {
    let report = check(setup, usd()).await.unwrap();
    assert!(report.agrees() && report.unpublished == 0, "{report}");
}

#[tokio::test]
async fn everything_is_published_once_and_in_order() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let mut relay = Relay::new(setup.clone());
    let orders = place(&world, 250).await;
    pay(&world, &orders[..100]).await;
    assert_eq!(drain(&mut relay).await, 350);
    pay(&world, &orders[100..]).await;
    assert_eq!(drain(&mut relay).await, 150);
    let seen = versions(&setup).await;
    assert_eq!(seen.len(), 250);
    assert!(seen.values().all(|versions| *versions == [1, 2]));
    assert_agrees(&setup).await;
}

#[tokio::test]
async fn a_low_sequence_that_commits_late_is_published_and_nobody_waits_for_it() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let mut relay = Relay::new(setup.clone());
    place(&world, 5).await;
    drain(&mut relay).await;
    // A transaction takes its sequence number and its event now, and commits after hundreds of others.
    let mut late = world.pool.begin().await.unwrap();
    let id = Uuid::now_v7();
    let payload = format!(
        "{{\"event_type\":\"OrderCreated\",\"order_id\":\"{id}\",\"customer_id\":\"late\",\"items\":[{{\"sku\":\"a\",\"quantity\":1}}],\"total\":1.00,\"created_at\":\"2026-01-01T00:00:00Z\",\"currency\":\"USD\",\"event_id\":\"{id}\",\"version\":1,\"schema_version\":2,\"occurred_at\":\"2026-01-01T00:00:00Z\"}}"
    );
    sqlx::query("insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at) values ($1, 1, $1, 'OrderCreated', 2, $2, '2026-01-01')")
        .bind(id).bind(&payload).execute(&mut *late).await.unwrap();
    sqlx::query("insert into outbox (order_id, version) values ($1, 1)").bind(id).execute(&mut *late).await.unwrap();
    let state = r#"{"status":"CREATED","basket":{"customer_id":"late","lines":[{"sku":"a","quantity":1,"unit_price":null}],"total":{"minor":100,"currency":"USD"}}}"#;
    sqlx::query(
        "insert into orders (order_id, version, status, state, state_revision) values ($1, 1, 'CREATED', $2, 1)",
    )
    .bind(id)
    .bind(state)
    .execute(&mut *late)
    .await
    .unwrap();
    place(&world, 300).await;
    assert_eq!(drain(&mut relay).await, 300, "nobody waits for the open transaction");
    assert_eq!(drain(&mut relay).await, 0);
    // A relay that takes over meanwhile must not lose it either.
    drop(relay);
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    let mut relay = Relay::new(another_owner(&setup));
    assert_eq!(drain(&mut relay).await, 0);
    late.commit().await.unwrap();
    assert_eq!(drain(&mut relay).await, 1, "the late one");
    assert_eq!(versions(&setup).await[&id.to_string()], [1]);
    assert_agrees(&setup).await;
}

#[tokio::test]
async fn a_relay_that_dies_before_it_saves_only_repeats() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let mut relay = Relay::new(setup.clone());
    assert_eq!(drain(&mut relay).await, 0, "takes office");
    let orders = place(&world, 150).await;
    pay(&world, &orders).await;
    // The broker acknowledges, the progress cannot be saved.
    let mut blocker = world.pool.begin().await.unwrap();
    blocker.execute("lock table relay_progress in share row exclusive mode").await.unwrap();
    {
        let step = relay.step();
        tokio::pin!(step);
        let acknowledged = eventually(Duration::from_secs(10), "records in the topic", || async {
            let ends = topic::end_offsets(&setup.brokers, &setup.topic.name, PARTITIONS).await.unwrap();
            let records: i64 = ends.iter().map(|(_, high)| high).sum();
            if records >= 100 { Ok(()) } else { Err(format!("{records} records")) }
        });
        tokio::select! {
            outcome = &mut step => panic!("the step ended: {outcome:?}"),
            () = acknowledged => {}
        }
    } // and here it dies
    drop(relay);
    blocker.rollback().await.unwrap();
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    let mut next = Relay::new(another_owner(&setup));
    assert_eq!(drain(&mut next).await, 300);
    let report = check(&setup, usd()).await.unwrap();
    assert!(report.agrees(), "{report}");
    assert_eq!(
        (report.events, report.duplicates),
        (300, 100),
        "the batch in flight is there twice, nothing is missing"
    );
}

#[tokio::test]
async fn of_two_relays_one_publishes_and_the_other_takes_over() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let mut first = Relay::new(setup.clone());
    let mut second = Relay::new(another_owner(&setup));
    assert_eq!(first.step().await.unwrap(), Step::Idle);
    assert_eq!(second.step().await.unwrap(), Step::NotOwner);
    place(&world, 10).await;
    assert_eq!(drain(&mut first).await, 10);
    // The first one is paused for longer than its lease; the second one takes over.
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    place(&world, 10).await;
    assert_eq!(drain(&mut second).await, 10);
    // It wakes up, does not know yet, and cannot turn anything back.
    place(&world, 10).await;
    let zombie = first.step().await;
    assert!(zombie.is_err(), "a zombie's progress is refused: {zombie:?}");
    assert_eq!(first.step().await.unwrap(), Step::NotOwner);
    assert_eq!(drain(&mut second).await, 10);
    let report = check(&setup, usd()).await.unwrap();
    assert!(report.agrees(), "{report}");
    assert_eq!(report.events, 30);
}

#[tokio::test]
async fn a_chore_is_handed_the_office_and_gives_it_back() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let orders = place(&world, 20).await;
    let shutdown = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(Relay::new(setup.clone()).run(shutdown.clone()));
    let agreed = || async {
        match check(&setup, usd()).await {
            Ok(report) if report.agrees() && report.unpublished == 0 => Ok(()),
            Ok(report) => Err(report.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    eventually(Duration::from_secs(20), "everything published", agreed).await;
    let one = Selection { all: false, order: Some(orders[0].0), from: None, to: None };
    assert_eq!(republish(&another_owner(&setup), &one, HANDOVER).await.unwrap(), 1);
    let all = Selection { all: true, order: None, from: None, to: None };
    assert_eq!(republish(&another_owner(&setup), &all, HANDOVER).await.unwrap(), 20);
    let none = Selection { all: false, order: None, from: None, to: Some("2020-01-01T00:00:00Z".parse().unwrap()) };
    assert_eq!(republish(&another_owner(&setup), &none, HANDOVER).await.unwrap(), 0);
    pay(&world, &orders).await;
    eventually(Duration::from_secs(20), "the relay back in office", agreed).await;
    assert_eq!(check(&setup, usd()).await.unwrap().duplicates, 21);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_topic_that_was_recreated_gets_exactly_what_it_lost() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let mut relay = Relay::new(setup.clone());
    let orders = place(&world, 120).await;
    pay(&world, &orders).await;
    assert_eq!(drain(&mut relay).await, 240);
    // The same as a deleted topic: another one of the same size and settings, empty.
    let empty = TopicSpec { name: testkit::topic("recreated"), ..setup.topic.clone() };
    topic::ensure(&setup.brokers, &empty).await.unwrap();
    drop(relay);
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    let recreated = Setup { topic: empty, ..another_owner(&setup) };
    let late = place(&world, 30).await;
    let mut relay = Relay::new(recreated.clone());
    assert_eq!(drain(&mut relay).await, 0, "the topic is filled before anything is published, with all of the log");
    let report = check(&recreated, usd()).await.unwrap();
    assert!(report.agrees() && report.duplicates == 0, "{report}");
    assert_eq!(report.records, 270);
    let seen = versions(&recreated).await;
    assert_eq!(seen[&late[0].to_string()], [1]);
    assert!(orders.iter().all(|id| seen[&id.to_string()] == [1, 2]));
    drop(relay);
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    assert_eq!(reconcile(&another_owner(&recreated), HANDOVER).await.unwrap(), 0, "a whole topic gets nothing");
}

#[tokio::test]
async fn the_check_finds_what_disagrees() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let orders = place(&world, 3).await;
    let mut relay = Relay::new(setup.clone());
    drain(&mut relay).await;
    assert_agrees(&setup).await;
    sqlx::query("update orders set version = 7 where order_id = $1")
        .bind(orders[0].0)
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("update orders set state = replace(state, '1500', '1501') where order_id = $1")
        .bind(orders[1].0)
        .execute(&world.pool)
        .await
        .unwrap();
    sqlx::query("delete from outbox where order_id = $1").bind(orders[2].0).execute(&world.pool).await.unwrap();
    let report = check(&setup, usd()).await.unwrap();
    assert_eq!(report.disagreements[&Kind::Aggregate].count, 2, "{report}");
    assert_eq!(report.disagreements[&Kind::Outbox].count, 1, "{report}");
    let elsewhere =
        Setup { topic: TopicSpec { name: testkit::topic("elsewhere"), ..setup.topic.clone() }, ..setup.clone() };
    topic::ensure(&elsewhere.brokers, &elsewhere.topic).await.unwrap();
    let report = check(&elsewhere, usd()).await.unwrap();
    assert_eq!(report.disagreements[&Kind::MissingInTopic].count, 3, "{report}");
}

#[tokio::test]
async fn the_outbox_is_purged_by_whole_partitions_that_are_published_and_old() {
    let world = World::start().await;
    let mut setup = setup(&world).await;
    setup.limits.outbox_keep_s = 0;
    place(&world, 5).await;
    world.pool.execute("select setval('outbox_seq', 5000000)").await.unwrap();
    place(&world, 5).await;
    // The service's own role calls the functions; it does not own the tables.
    let mut service = world.connect.connect().await.unwrap();
    let purge = "select outbox_partitions_purge(interval '0 seconds')";
    // Relays of an earlier release say themselves what is published; nobody takes their word for it.
    for purge in [purge, "select outbox_partitions_purge('1:999999999:', interval '0 seconds')"] {
        let dropped: i32 = sqlx::query_scalar(purge).fetch_one(&mut service).await.unwrap();
        assert_eq!(dropped, 0, "nothing is published yet");
    }
    let mut relay = Relay::new(setup.clone());
    assert_eq!(drain(&mut relay).await, 10);
    let dropped: i32 = sqlx::query_scalar(purge).fetch_one(&mut service).await.unwrap();
    assert_eq!(dropped, 1, "the first partition is published to its end");
    assert_eq!(world.count("select count(*) from outbox").await, 5);
    let ahead = "select count(*) from pg_inherits where inhparent = 'outbox'::regclass";
    assert_eq!(world.count(ahead).await, 3, "the relay has made partitions ahead of the sequence");
    place(&world, 5).await;
    assert_eq!(drain(&mut relay).await, 5);
    assert_agrees(&setup).await;
}
