//! Nodes that share a PostgreSQL: one projects, all serve, and whoever was overtaken changes nothing (rules R23).

use std::time::Duration;

use chassis::kafka::Brokers;
use chassis::testkit::eventually;
use query::intake::Record;
use query::projector::Step;
use query::store::Error;
use query::store::postgres::{Keeper, LEASE};
use tokio_util::sync::CancellationToken;

use crate::world::{Kind, Node, World, get, order, whole_life};

const SOON: Duration = Duration::from_secs(20);

/// A node that projects, and another one on the same database.
async fn two_nodes() -> (World, Node) {
    let world = World::new(Kind::Postgres).await;
    let other = Node::open(&world.place.url(), nobody(), "orders.events").await;
    (world, other)
}

fn nobody() -> Brokers {
    Brokers("127.0.0.1:1".into())
}

fn keeper(keeper: &Option<Keeper>) -> &Keeper {
    keeper.as_ref().unwrap()
}

/// As if the owner had not been heard of for the length of a lease.
async fn the_lease_runs_out(world: &World) {
    world.tamper("", "update projection_lease set expires_at = '-infinity'").await;
}

fn records(world: &mut World, n: u128) -> Vec<Record> {
    whole_life(n).iter().map(|event| world.record(event)).collect()
}

#[tokio::test]
async fn one_node_projects_and_all_serve() {
    let (mut world, mut other) = two_nodes().await;
    assert!(!keeper(&other.keeper).step().await.unwrap());
    assert_eq!(other.projector.step().await.unwrap(), Step::Standby);
    let batch = records(&mut world, 1);
    assert!(matches!(other.projector.apply(batch.clone()).await, Err(Error::Superseded)));
    world.apply(batch).await;
    let path = format!("/orders/{}", order(1));
    let (here, there) = (world.get(&path).await, get(&other.router, &path, &[]).await);
    assert_eq!((here.status.as_u16(), &here.text), (200, &there.text));
    let shown = get(&other.router, "/projection", &[]).await;
    assert_eq!(shown.json()["topic"], "another node reads it");
}

#[tokio::test]
async fn a_reader_waits_for_a_version_on_any_node() {
    let (mut world, Node { router, freshness, store, .. }) = two_nodes().await;
    let shutdown = CancellationToken::new();
    let watching = tokio::spawn(freshness.watch(store, shutdown.clone()));
    world.happen(&whole_life(1)[..1]).await;
    let path = format!("/orders/{}?min_version=2", order(1));
    let readers = (0..20).map(|_| get(&router, &path, &[("prefer", "wait=10")]));
    let writing = async {
        tokio::task::yield_now().await;
        world.happen(&whole_life(1)[1..2]).await;
    };
    let (answers, ()) = tokio::join!(futures_util::future::join_all(readers), writing);
    assert!(answers.iter().all(|answer| answer.json()["status"] == "PAID"), "{answers:?}");
    shutdown.cancel();
    watching.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_is_cut_costs_a_reader_one_question_at_most() {
    let mut world = World::new(Kind::Postgres).await;
    world.happen(&whole_life(1)).await;
    let path = format!("/orders/{}", order(1));
    assert_eq!(world.get(&path).await.status, 200);
    let cut = "select pg_terminate_backend(pid, 5000) from pg_stat_activity \
        where application_name like 'order-query%' and datname = current_database()";
    world.tamper("", cut).await;
    let answer = world.get(&path).await;
    if answer.status != 200 {
        answer.assert_problem(503, "not-ready");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    assert_eq!(world.get(&path).await.status, 200);
    // So does the projector lose a batch at most, and reads it again.
    let batch = records(&mut world, 2);
    assert_eq!(world.apply(batch).await.applied, 4);
}

#[tokio::test]
async fn a_heartbeat_keeps_the_lease_and_its_absence_loses_it() {
    let (world, other) = two_nodes().await;
    let (ours, theirs) = (keeper(&world.keeper), keeper(&other.keeper));
    assert!(ours.step().await.unwrap());
    assert!(!theirs.step().await.unwrap());
    // Nobody renews it from here on.
    eventually(LEASE + SOON, "the other node takes the lease when it has run out", || async {
        if theirs.step().await.unwrap() { Ok(()) } else { Err("it is still held".to_owned()) }
    })
    .await;
    assert!(!ours.step().await.unwrap(), "who was overtaken learns it with the next heartbeat");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_overtaken_in_the_middle_of_a_batch_changes_nothing() {
    let (mut world, mut other) = two_nodes().await;
    world.happen(&whole_life(1)).await;
    let (before, checkpoints) = (world.dump().await, world.store.checkpoints().await.unwrap());
    let mut batch = records(&mut world, 2);
    batch.push(world.message(order(3), "garbage".into()));

    // It gets as far as its dead letters, which come after all projections.
    let pool = match &world.place {
        crate::world::Place::Database(database) => database.pool(),
        crate::world::Place::Folder(..) => panic!("not a database"),
    };
    let mut obstacle = pool.begin().await.unwrap();
    sqlx::query("lock table dead_letters in share row exclusive mode").execute(&mut *obstacle).await.unwrap();
    let overtaken = async { world.projector.apply(batch.clone()).await };
    let overtaking = async {
        eventually(SOON, "the batch is stopped in its middle", || async {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_locks where relation = 'dead_letters'::regclass and not granted",
            )
            .fetch_one(&pool)
            .await
            .unwrap();
            if waiting == 1 { Ok(()) } else { Err(format!("{waiting} wait")) }
        })
        .await;
        let expire = "update projection_lease set expires_at = '-infinity'";
        sqlx::query(expire).execute(&pool).await.unwrap();
        assert!(keeper(&other.keeper).step().await.unwrap());
        obstacle.rollback().await.unwrap();
    };
    let (outcome, ()) = tokio::join!(overtaken, overtaking);
    assert!(matches!(outcome, Err(Error::Superseded)), "{outcome:?}");
    assert_eq!(world.dump().await, before);
    assert_eq!(world.store.checkpoints().await.unwrap(), checkpoints);
    assert_eq!(world.count("select count(*) from dead_letters").await, 0);

    let summary = other.projector.apply(batch).await.unwrap();
    assert_eq!((summary.applied, summary.dead_letters), (4, 1));
}

#[tokio::test]
async fn a_node_that_wakes_up_after_another_took_over_changes_nothing() {
    let (mut world, mut other) = two_nodes().await;
    world.happen(&whole_life(1)).await;
    the_lease_runs_out(&world).await;
    assert!(keeper(&other.keeper).step().await.unwrap());
    let (first, second) = (records(&mut world, 2), records(&mut world, 3));
    other.projector.apply(first).await.unwrap();
    let before = world.dump().await;
    // Its keeper has not had a heartbeat yet: it believes that the turn is still its own.
    assert!(matches!(world.projector.apply(second).await, Err(Error::Superseded)));
    assert_eq!(world.dump().await, before);
    assert!(!keeper(&world.keeper).step().await.unwrap());
    assert_eq!(world.projector.step().await.unwrap(), Step::Standby);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_hands_over_at_once() {
    let (world, other) = two_nodes().await;
    let World { projector, keeper: ours, place: _place, .. } = world;
    let (ours, theirs) = (ours.unwrap(), keeper(&other.keeper));
    let shutdown = CancellationToken::new();
    let keeping = tokio::spawn(ours.run());
    let projecting = tokio::spawn(projector.run(shutdown.clone()));
    assert!(!theirs.step().await.unwrap());
    shutdown.cancel();
    tokio::time::timeout(SOON, projecting).await.unwrap().unwrap().unwrap();
    tokio::time::timeout(SOON, keeping).await.unwrap().unwrap().unwrap();
    assert!(theirs.step().await.unwrap(), "without waiting for the end of a lease");
}
