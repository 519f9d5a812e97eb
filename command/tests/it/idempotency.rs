//! A key belongs to one request, and the request is executed once.

use std::time::Duration;

use axum::http::StatusCode;
use command::executor::Failure;
use command::idempotency;
use futures_util::future::join_all;
use sqlx::ConnectOptions as _;

use crate::world::{ORDER, World, keyed, limits, new_order};

#[tokio::test]
async fn a_repeated_key_returns_the_first_response() {
    let world = World::start().await;
    let first = world.ask("POST", "/orders", &[("idempotency-key", "k-1")], ORDER).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (StatusCode::CREATED, None));
    let again = world.ask("POST", "/orders", &[("idempotency-key", "\"k-1\"")], ORDER).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for header in ["etag", "location", "content-type"] {
        assert_eq!(again.header(header), first.header(header), "{header}");
    }
    assert_eq!(world.count("select count(*) from events").await, 1);
}

#[tokio::test]
async fn a_refusal_is_remembered_like_an_acceptance() {
    let world = World::start().await;
    let id = world.placed().await;
    let ship = format!("/orders/{id}/ship");
    let first = world.ask("POST", &ship, &[("idempotency-key", "k-2")], "").await;
    first.is_problem(409, "not-paid");
    world.post(&format!("/orders/{id}/pay"), "").await;
    let again = world.ask("POST", &ship, &[("idempotency-key", "k-2")], "").await;
    again.is_problem(409, "not-paid");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.text, first.text);
}

#[tokio::test]
async fn a_key_with_another_request_is_refused() {
    let world = World::start().await;
    world.ask("POST", "/orders", &[("idempotency-key", "k-3")], ORDER).await;
    let other = ORDER.replace("customer-1", "customer-2");
    let response = world.ask("POST", "/orders", &[("idempotency-key", "k-3")], &other).await;
    response.is_problem(422, "idempotency-key-reused");
    assert_eq!(response.json()["outcome"], "not-executed");
    assert_eq!(world.count("select count(*) from events").await, 1);
}

#[tokio::test]
async fn the_same_key_fifty_times_at_once_places_one_order() {
    let world = World::start().await;
    let key = [("idempotency-key", "k-50")];
    let responses = join_all((0..50).map(|_| world.ask("POST", "/orders", &key, ORDER))).await;
    let first = &responses[0];
    let mut executed = 0;
    for response in &responses {
        assert_eq!((response.status, &response.text), (StatusCode::CREATED, &first.text));
        executed += usize::from(response.header("idempotency-replayed").is_none());
    }
    assert_eq!(executed, 1, "one is executed, the others are told what it got");
    assert_eq!(world.count("select count(*) from events").await, 1);
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_busy_key_stalls_nobody_and_is_refused_when_time_is_up() {
    let mut limits = limits();
    limits.lanes = 1;
    limits.command_deadline = Duration::from_millis(700);
    let world = World::with(limits).await;
    // Somebody holds the key's lock: another node whose transaction takes long.
    let mut holder = world.pool.begin().await.unwrap();
    let lock: Vec<u8> = sqlx::query_scalar("select sha256('busy'::bytea)").fetch_one(&mut *holder).await.unwrap();
    let id = i64::from_be_bytes(lock[..8].try_into().unwrap());
    sqlx::query("select pg_advisory_xact_lock($1)").bind(id).execute(&mut *holder).await.unwrap();

    let busy = world.executor.execute(keyed("busy", new_order("held")));
    let neighbours = async {
        let started = tokio::time::Instant::now();
        for n in 0..20 {
            world.executor.execute(keyed(&format!("free-{n}"), new_order("neighbour"))).await.unwrap();
        }
        started.elapsed()
    };
    let (busy, elapsed) = tokio::join!(busy, neighbours);
    assert_eq!(busy.unwrap_err(), Failure::KeyBusy);
    assert!(elapsed < Duration::from_millis(700), "neighbours took {elapsed:?}");
    assert_eq!(world.count("select count(*) from events where payload like '%held%'").await, 0);

    holder.rollback().await.unwrap();
    world.executor.execute(keyed("busy", new_order("held"))).await.unwrap();
    assert_eq!(world.count("select count(*) from events where payload like '%held%'").await, 1);
}

#[tokio::test]
async fn a_key_is_forgotten_after_its_time() {
    let world = World::start().await;
    world.ask("POST", "/orders", &[("idempotency-key", "old")], ORDER).await;
    let mut connection = world.pool.acquire().await.unwrap();
    assert_eq!(idempotency::forget_expired(&mut connection, 3600, 100).await.unwrap(), 0);
    sqlx::query("update idempotency_keys set created_at = now() - interval '2 hours'")
        .execute(&world.pool)
        .await
        .unwrap();
    assert_eq!(idempotency::forget_expired(&mut connection, 3600, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn the_same_key_twelve_times_at_once_is_one_order_whatever_the_database_defaults_to() {
    let world = World::start().await;
    let name = world.connect.get_database().unwrap();
    for default in ["default_transaction_isolation = 'repeatable read'", "default_transaction_read_only = on"] {
        let alter = sqlx::AssertSqlSafe(format!("alter database {name} set {default}"));
        sqlx::raw_sql(alter).execute(&world.pool).await.unwrap();
    }
    // The lanes connect with their first commands, so the defaults are theirs.
    for round in 0..5 {
        let key = format!("k-12-{round}");
        let requests = (0..12).map(|_| world.executor.execute(keyed(&key, new_order("same"))));
        let answers: Vec<_> = join_all(requests).await.into_iter().map(Result::unwrap).collect();
        assert!(answers.iter().all(|answer| answer.reply == answers[0].reply), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    }
    assert_eq!(world.count("select count(*) from events").await, 5);
    world.assert_consistent().await;
}

#[tokio::test]
async fn a_condition_belongs_to_the_request_of_a_key() {
    let world = World::start().await;
    let id = world.placed().await;
    let pay = format!("/orders/{id}/pay");
    let ask = |condition: &'static str| {
        let (world, pay) = (&world, &pay);
        async move { world.ask("POST", pay, &[("idempotency-key", "k"), ("if-match", condition)], "").await }
    };
    ask("\"7\"").await.is_problem(412, "version-mismatch");
    let repeated = ask("W/\"7\"").await;
    repeated.is_problem(412, "version-mismatch");
    assert_eq!(repeated.header("idempotency-replayed"), Some("true"), "the same condition is the same request");
    ask("\"1\"").await.is_problem(422, "idempotency-key-reused");
    let without = world.ask("POST", &pay, &[("idempotency-key", "k")], "").await;
    without.is_problem(422, "idempotency-key-reused");
    assert_eq!(world.count("select count(*) from events").await, 1, "nothing was paid");
}

#[tokio::test]
async fn a_key_that_was_stored_before_conditions_belonged_to_it_is_still_answered() {
    let world = World::start().await;
    let headers = [("idempotency-key", "k")];
    let placed = world.ask("POST", "/orders", &headers, ORDER).await;
    let older = "update idempotency_keys set fingerprint = sha256(
                     int8send(4) || 'POST' || int8send(7) || '/orders' || int8send(octet_length($1)) || $1::bytea)";
    let updated = sqlx::query(older).bind(ORDER.as_bytes()).execute(&world.pool).await.unwrap();
    assert_eq!(updated.rows_affected(), 1);
    let again = world.ask("POST", "/orders", &headers, ORDER).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (StatusCode::CREATED, Some("true")));
    assert_eq!(again.text, placed.text);
}

#[tokio::test]
async fn expiry_keeps_up_with_any_number_of_keys_on_any_number_of_nodes() {
    let world = World::start().await;
    world.ask("POST", "/orders", &[("idempotency-key", "alive")], ORDER).await;
    let store = "insert into idempotency_keys (key, fingerprint, status, body, created_at)
                 select 'expired-' || n, '', 200, '{}', now() - interval '8 days' from generate_series(1, 45000) as n";
    sqlx::query(store).execute(&world.pool).await.unwrap();
    let node = async || {
        let mut connection = world.connect.connect().await.unwrap();
        idempotency::forget_expired(&mut connection, 7 * 86_400, 2_000).await.unwrap()
    };
    let forgotten: u64 = join_all((0..3).map(|_| node())).await.into_iter().sum::<u64>() + node().await;
    assert_eq!(forgotten, 45_000);
    assert_eq!(world.count("select count(*) from idempotency_keys").await, 1, "the one that is alive");
    let index = "select count(*) from pg_stat_user_indexes where indexrelname = 'idempotency_keys_expiry'";
    assert_eq!(world.count(index).await, 1);
}

#[tokio::test]
async fn a_node_that_does_not_have_the_turn_leaves_expired_keys_to_the_other() {
    let world = World::start().await;
    let store = "insert into idempotency_keys (key, fingerprint, status, body, created_at)
                 values ('expired', '', 200, '{}', now() - interval '8 days')";
    sqlx::query(store).execute(&world.pool).await.unwrap();
    let mut other = world.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(x'6b657973'::int, 0)").execute(&mut *other).await.unwrap();
    let mut connection = world.connect.connect().await.unwrap();
    assert_eq!(idempotency::forget_expired(&mut connection, 3_600, 10).await.unwrap(), 0);
    other.rollback().await.unwrap();
    assert_eq!(idempotency::forget_expired(&mut connection, 3_600, 10).await.unwrap(), 1);
}
