use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::world::World;
use crate::world::client::{Answer, TWO_AND_ONE};

/// What a client does that is told to come back.
async fn until_told(request: reqwest::RequestBuilder) -> Answer {
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        // The service itself lets a busy key wait for a while before it says so.
        let answer = Answer::to(request.try_clone().unwrap()).await.unwrap();
        if answer.status != 503 {
            return answer;
        }
        assert_eq!(answer.json()["outcome"], "not-executed");
    }
    panic!("told to come back {TRIES} times")
}

#[tokio::test]
async fn one_key_fifty_times_at_once_is_one_order_and_one_answer() {
    let world = World::start().await;
    let alice = world.customer("alice");
    let requests = (0..50).map(|_| until_told(alice.asks_for(TWO_AND_ONE).header("idempotency-key", "the-one")));
    let answers = join_all(requests).await;

    assert!(answers.iter().all(|answer| answer.status == 201));
    let bodies: HashSet<&str> = answers.iter().map(|answer| answer.body.as_str()).collect();
    assert_eq!(bodies.len(), 1, "{bodies:?}");
    let locations: HashSet<&str> = answers.iter().map(|answer| answer.header("location")).collect();
    assert_eq!(locations.len(), 1);
    let replayed = answers.iter().filter(|answer| answer.header("idempotency-replayed") == "true").count();
    assert_eq!(replayed, 49);
    assert_eq!(world.logged().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_repeated_key_returns_the_first_response_bare_or_quoted() {
    let world = World::start().await;
    let alice = world.customer("alice");
    let placed = Answer::to(alice.asks_for(TWO_AND_ONE).header("idempotency-key", "k")).await.unwrap().is(201);
    alice.pays(placed.order()).await;
    let again = Answer::to(alice.asks_for(TWO_AND_ONE).header("idempotency-key", "\"k\"")).await.unwrap().is(201);
    assert_eq!(again.body, placed.body, "as it was, not as it is");
    assert_eq!(again.header("etag"), "\"1\"");
    assert_eq!(again.header("idempotency-replayed"), "true");

    // A rejection is an answer too.
    let pay = || alice.asks(placed.order().id, "pay", None).header("idempotency-key", "p");
    let refused = Answer::to(pay()).await.unwrap().is(409);
    let refused_again = Answer::to(pay()).await.unwrap().is(409);
    assert_eq!(refused_again.body, refused.body);
    assert_eq!(refused_again.header("idempotency-replayed"), "true");
    world.end().await;
}

#[tokio::test]
async fn a_key_belongs_to_one_request() {
    let world = World::start().await;
    let alice = world.customer("alice");
    Answer::to(alice.asks_for(TWO_AND_ONE).header("idempotency-key", "k")).await.unwrap().is(201);
    let other = Answer::to(alice.asks_for(&[("prod-1", 1)]).header("idempotency-key", "k")).await.unwrap().is(422);
    assert_eq!(other.problem(), "idempotency-key-reused");
    assert_eq!(other.json()["outcome"], "not-executed");
    assert_eq!(world.logged().await.len(), 1);
    world.end().await;
}

#[tokio::test]
async fn a_busy_key_does_not_stall_its_neighbours() {
    let world = World::start().await;
    let alice = world.customer("alice");
    // Somebody has this key and does not come to an end: its row is written by an open transaction.
    let mut somebody = world.log().begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock($1)").bind(lock_id("busy")).execute(&mut *somebody).await.unwrap();
    let stuck = tokio::spawn(Answer::to(alice.asks_for(TWO_AND_ONE).header("idempotency-key", "busy")));

    let began = Instant::now();
    let neighbours = join_all(
        (0..100).map(|n| Answer::to(alice.asks_for(TWO_AND_ONE).header("idempotency-key", format!("neighbour-{n}")))),
    )
    .await;
    for neighbour in neighbours {
        neighbour.unwrap().is(201);
    }
    assert!(began.elapsed() < Duration::from_secs(3), "the neighbours waited for {:?}", began.elapsed());
    assert!(!stuck.is_finished(), "the key is busy");

    let told = stuck.await.unwrap().unwrap().is(503);
    assert_eq!(told.problem(), "idempotency-key-busy");
    assert_eq!(told.json()["outcome"], "not-executed");
    assert_ne!(told.header("retry-after"), "");
    somebody.rollback().await.unwrap();
    until_told(alice.asks_for(TWO_AND_ONE).header("idempotency-key", "busy")).await.is(201);
    world.end().await;
}

/// The lock of a key, as `order-command` takes it: the first eight bytes of the key's SHA-256.
fn lock_id(key: &str) -> i64 {
    let digest = domain::schema::digest(key.as_bytes());
    i64::from_be_bytes(digest[..8].try_into().unwrap())
}
