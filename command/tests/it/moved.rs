//! A database that was moved to another server, or turned back: what the relay makes of it.

use std::time::Duration;

use chassis::kafka::{TopicSpec, topic};
use chassis::testkit::{self, eventually};
use command::check::{Kind, check};
use command::config::Selection;
use command::relay::reconcile::reconcile;
use command::relay::{Error, Relay, Setup, Step};
use command::republish::republish;
use domain::OrderId;
use sqlx::{AssertSqlSafe, Executor as _};

use crate::relay::{HANDOVER, another_owner, assert_agrees, drain, pay, place, setup, versions};
use crate::world::{World, usd};

/// Where the transaction ids of the server that a database came from lie.
#[derive(Debug, Clone, Copy)]
enum Ids {
    /// Far beyond those of this one, as after a dump that is restored on a new server.
    Ahead,
    /// Far below them, where everything seems to be long finished.
    Behind,
}

/// Makes the database what a dump of it would be on another server: the ids in its rows are not the ids of those who wrote them.
async fn moves(world: &World, ids: Ids) {
    let moved = match ids {
        Ids::Ahead => |column: &str| format!("({column}::text::bigint + 1000000000)::text::xid8"),
        Ids::Behind => |column: &str| format!("(3 + {column}::text::bigint % 50)::text::xid8"),
    };
    let progress = match ids {
        Ids::Ahead => "1000000100:1000000100:",
        Ids::Behind => "53:53:",
    };
    for statement in [
        format!("update outbox set xid = {}", moved("xid")),
        format!("update relay_progress set done = '{progress}', until = null, saved_by = {}", moved("saved_by")),
        "update relay_lease set expires_at = '-infinity'".to_owned(),
    ] {
        world.pool.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

/// A relay that takes over from one that is gone.
async fn next_relay(world: &World, setup: &Setup) -> Relay {
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    Relay::new(another_owner(setup))
}

/// Every version of every order is there once, in order.
async fn assert_once_in_order(setup: &Setup, orders: &[OrderId], last: u64) {
    let seen = versions(setup).await;
    for order in orders {
        assert_eq!(seen[&order.to_string()], (1..=last).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_moved_outbox_is_published_to_its_end_and_nothing_twice() {
    for ids in [Ids::Ahead, Ids::Behind] {
        let world = World::start().await;
        let setup = setup(&world).await;
        let orders = place(&world, 120).await;
        assert_eq!(drain(&mut Relay::new(setup.clone())).await, 120);
        pay(&world, &orders[..50]).await;
        moves(&world, ids).await;
        let report = check(&setup, usd()).await.unwrap();
        assert_eq!(report.disagreements.keys().collect::<Vec<_>>(), [&Kind::Progress], "{report}");
        assert_eq!(report.unpublished, 50, "{report}");

        let mut relay = next_relay(&world, &setup).await;
        drain(&mut relay).await;
        assert_agrees(&setup).await;
        assert_once_in_order(&setup, &orders[..50], 2).await;
        assert_once_in_order(&setup, &orders[50..], 1).await;
        // From here on it is a database like any other.
        pay(&world, &orders[50..]).await;
        assert_eq!(drain(&mut relay).await, 70);
        let mut relay = next_relay(&world, &setup).await;
        assert_eq!(drain(&mut relay).await, 0);
        assert_once_in_order(&setup, &orders, 2).await;
        let foreign = "select count(*) from outbox where xmin <> xid::xid";
        assert_eq!(world.count(foreign).await, 0, "rows are adopted for good");
    }
}

#[tokio::test]
async fn orders_of_a_moved_database_that_nobody_ever_looked_at_are_published() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let orders = place(&world, 20).await;
    moves(&world, Ids::Ahead).await;
    world.pool.execute("update relay_progress set done = '1:1:', saved_by = null").await.unwrap();
    drain(&mut Relay::new(setup.clone())).await;
    assert_once_in_order(&setup, &orders, 1).await;
    assert_agrees(&setup).await;
}

#[tokio::test]
async fn rows_that_arrive_from_another_server_during_a_term_are_published() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let mut relay = Relay::new(setup.clone());
    place(&world, 5).await;
    assert_eq!(drain(&mut relay).await, 5);
    let orders = place(&world, 5).await;
    world.pool.execute("update outbox set xid = '123456789012' where seq > 5").await.unwrap();
    let noticed = relay.step().await;
    assert!(matches!(noticed, Err(Error::Moved)), "{noticed:?}");
    let mut relay = next_relay(&world, &setup).await;
    drain(&mut relay).await;
    assert_once_in_order(&setup, &orders, 1).await;
    assert_agrees(&setup).await;
}

/// Steps until somebody waits for the lock that `obstacle` is about, and dies there.
async fn dies_waiting(world: &World, mut relay: Relay) {
    let waits = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    {
        let step = relay.step();
        tokio::pin!(step);
        let waiting = eventually(Duration::from_secs(20), "the relay waits for the lock", || async {
            if world.count(waits).await > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
        });
        tokio::select! {
            outcome = &mut step => panic!("the step ended: {outcome:?}"),
            () = waiting => {}
        }
    }
    drop(relay);
    let sessions = "select pg_terminate_backend(pid) from pg_stat_activity
                    where datname = current_database() and application_name = 'order-command-test' and wait_event_type = 'Lock'";
    world.pool.execute(sessions).await.unwrap();
}

#[tokio::test]
async fn a_relay_that_dies_while_it_builds_its_progress_anew_is_followed_by_one_that_does_it_again() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let orders = place(&world, 100).await;
    assert_eq!(drain(&mut Relay::new(setup.clone())).await, 100);
    pay(&world, &orders).await;
    moves(&world, Ids::Behind).await;

    // While it adopts the rows.
    let mut obstacle = world.pool.begin().await.unwrap();
    obstacle.execute("select from outbox where seq = 150 for update").await.unwrap();
    dies_waiting(&world, next_relay(&world, &setup).await).await;
    obstacle.rollback().await.unwrap();
    // While it publishes what is missing: nobody reads the orders.
    let mut obstacle = world.pool.begin().await.unwrap();
    obstacle.execute("lock table orders in access exclusive mode").await.unwrap();
    dies_waiting(&world, next_relay(&world, &setup).await).await;
    obstacle.rollback().await.unwrap();

    let mut relay = next_relay(&world, &setup).await;
    drain(&mut relay).await;
    assert_agrees(&setup).await;
    assert_once_in_order(&setup, &orders, 2).await;
}

#[tokio::test]
async fn nothing_is_dropped_on_the_word_of_progress_from_another_server() {
    let world = World::start().await;
    let setup = setup(&world).await;
    place(&world, 5).await;
    world.pool.execute("select setval('outbox_seq', 5000000)").await.unwrap();
    place(&world, 5).await;
    moves(&world, Ids::Behind).await;
    let purge = "select outbox_partitions_purge(interval '0 seconds')::bigint";
    assert_eq!(world.count(purge).await, 0, "the progress is of another server");
    drain(&mut next_relay(&world, &setup).await).await;
    assert_agrees(&setup).await;
    assert_eq!(world.count(purge).await, 1, "what was adopted and published can be dropped");
}

/// Turns the log back to what it was before its last events, with the progress of that time.
async fn turns_back(world: &World, progress_rows: i64) {
    let mut owner = world.pool.acquire().await.unwrap();
    for statement in [
        "set session_replication_role = replica".to_owned(),
        "delete from events where version = 2".to_owned(),
        "delete from outbox where version = 2".to_owned(),
        "update orders set version = 1, status = 'CREATED', state = replace(state, 'PAID', 'CREATED')".to_owned(),
        format!("delete from relay_progress where id > {progress_rows}"),
        "set session_replication_role = origin".to_owned(),
    ] {
        owner.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

#[tokio::test]
async fn nothing_is_published_over_a_topic_that_is_ahead_of_the_log() {
    let world = World::start().await;
    let setup = setup(&world).await;
    let orders = place(&world, 20).await;
    let mut relay = Relay::new(setup.clone());
    assert_eq!(drain(&mut relay).await, 20);
    drop(relay);
    let backup = world.count("select max(id) from relay_progress").await;
    pay(&world, &orders[..3]).await;
    assert_eq!(drain(&mut next_relay(&world, &setup).await).await, 3);
    turns_back(&world, backup).await;
    // The log goes on from there, and would tell other histories of two of them.
    pay(&world, &orders[1..5]).await;

    let told = another_owner(&setup);
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    let mut relay = Relay::new(told.clone());
    for _ in 0..3 {
        assert_eq!(relay.step().await.unwrap(), Step::Refused);
    }
    let ahead = told.status.report().ahead.unwrap();
    assert_eq!(ahead.orders(), 3, "{ahead}");
    assert!(ahead.to_string().contains(&orders[0].to_string()), "{ahead}");
    drop(relay);
    // Nor do chores, and a comparison of everything finds the same.
    world.pool.execute("update relay_lease set expires_at = '-infinity'").await.unwrap();
    let all = Selection { all: true, order: None, from: None, to: None };
    let refused = republish(&another_owner(&setup), &all, HANDOVER).await;
    assert!(matches!(&refused, Err(Error::Ahead(found)) if *found == ahead), "{refused:?}");
    world
        .pool
        .execute("update relay_progress set next_offsets = array_fill(9223372036854775807, array[3])")
        .await
        .unwrap();
    let refused = reconcile(&another_owner(&setup), HANDOVER).await;
    assert!(matches!(&refused, Err(Error::Ahead(found)) if *found == ahead), "{refused:?}");
    assert_eq!(versions(&setup).await.values().map(Vec::len).sum::<usize>(), 23, "nothing was published");
    let report = check(&setup, usd()).await.unwrap();
    assert_eq!(report.disagreements[&Kind::NotInLog].count, 3, "{report}");

    // The operator decides for the log: the topic is made anew.
    let empty = TopicSpec { name: testkit::topic("decided"), ..setup.topic.clone() };
    topic::ensure(&setup.brokers, &empty).await.unwrap();
    let decided = Setup { topic: empty, ..another_owner(&setup) };
    drain(&mut next_relay(&world, &decided).await).await;
    assert_agrees(&decided).await;
    assert_once_in_order(&decided, &orders[1..5], 2).await;
}

#[tokio::test]
async fn another_database_than_the_topics_publishes_nothing() {
    let (world, other) = (World::start().await, World::start().await);
    let here = setup(&world).await;
    place(&world, 10).await;
    drain(&mut Relay::new(here.clone())).await;
    let there = Setup { topic: here.topic.clone(), ..setup(&other).await };
    place(&other, 10).await;
    let mut relay = Relay::new(there);
    assert_eq!(relay.step().await.unwrap(), Step::Refused);
    assert_agrees(&here).await;
}
