//! The event log itself: append-only, and the rest can be rebuilt from it.

use std::time::Duration;

use axum::http::StatusCode;
use chassis::testkit::eventually;
use command::store;
use domain::order::OrderCommand;
use domain::{Order, OrderId, fold};
use futures_util::future::join_all;
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Row};
use tokio::time::Instant;

use crate::world::{World, command, new_order, usd};

const CHANGES: [&str; 3] = ["update events set payload = ''", "delete from events", "truncate events"];

#[tokio::test]
async fn the_services_own_role_cannot_change_the_past() {
    let world = World::start().await;
    world.placed().await;
    let mut service: PgConnection = world.connect.connect().await.unwrap();
    for change in CHANGES {
        let error = service.execute(change).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{change}: {error}");
    }
}

#[tokio::test]
async fn not_even_the_owner_changes_the_past_by_accident() {
    let world = World::start().await;
    world.placed().await;
    for change in CHANGES {
        let error = world.pool.execute(change).await.unwrap_err();
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "23001", "{change}: {error}");
    }
}

#[tokio::test]
async fn a_row_of_another_revision_is_folded_from_the_events_anew() {
    let world = World::start().await;
    let create = new_order("revised");
    let order_id = create.order_id;
    world.executor.execute(create).await.unwrap();
    sqlx::query("update orders set state = 'of another time', state_revision = 0").execute(&world.pool).await.unwrap();
    let pay = command(order_id, OrderCommand::Pay { payment_reference: None });
    let answer = world.executor.execute(pay).await.unwrap();
    assert_eq!(answer.reply.status, 200, "{}", answer.reply.body);
    let row = sqlx::query("select state, state_revision from orders").fetch_one(&world.pool).await.unwrap();
    let mut connection = world.pool.acquire().await.unwrap();
    let history = store::history(&mut connection, OrderId(order_id.0), usd()).await.unwrap();
    let folded = fold::<Order>(history.iter().map(|recorded| &recorded.event));
    assert_eq!(serde_json::from_str::<Order>(row.get(0)).unwrap(), folded);
    assert_eq!(row.get::<i16, _>(1), Order::STATE_REVISION);
}

#[tokio::test]
async fn the_log_is_read_page_by_page_to_its_end() {
    let world = World::start().await;
    let mut orders = Vec::new();
    for _ in 0..3 {
        let id = world.placed().await;
        world.post(&format!("/orders/{id}/pay"), "").await;
        orders.push(id);
    }
    let (mut read, mut next) = (Vec::new(), String::new());
    loop {
        let page = world.ask("GET", &format!("/internal/events?limit=4{next}"), &[], "").await.json();
        for event in page["events"].as_array().unwrap() {
            let message: serde_json::Value = serde_json::from_str(event["message"].as_str().unwrap()).unwrap();
            assert_eq!(message["version"], event["version"]);
            assert!(event["headers"].as_array().unwrap().contains(&serde_json::json!(["ce_id", message["event_id"]])));
            read.push((event["order_id"].as_str().unwrap().to_owned(), event["version"].as_u64().unwrap()));
        }
        match page["next"].as_str() {
            Some(place) => next = format!("&after={place}"),
            None => break,
        }
    }
    orders.sort();
    let all: Vec<_> = orders.into_iter().flat_map(|id| [(id.clone(), 1), (id, 2)]).collect();
    assert_eq!(read, all);
    world.ask("GET", "/internal/events?after=nowhere", &[], "").await.is_problem(400, "invalid-query");
    world.ask("GET", "/internal/events?limit=0", &[], "").await.is_problem(400, "invalid-query");
}

#[tokio::test]
async fn a_page_of_the_log_is_bounded_in_bytes_and_the_next_one_goes_on() {
    let world = World::start().await;
    // 40 events of 200 kB: as large as events may be, about.
    sqlx::query(
        "insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at)
         select gen_random_uuid(), 1, gen_random_uuid(), 'OrderCreated', 1, repeat('x', 200000), now()
         from generate_series(1, 40)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let (mut read, mut pages, mut next) = (0, 0, String::new());
    loop {
        let page = world.ask("GET", &format!("/internal/events?limit=5000{next}"), &[], "").await;
        assert!(page.text.len() < 3_000_000, "a page of {} bytes", page.text.len());
        pages += 1;
        read += page.json()["events"].as_array().unwrap().len();
        match page.json()["next"].as_str() {
            Some(place) => next = format!("&after={place}"),
            None => break,
        }
    }
    assert_eq!(read, 40);
    assert!(pages >= 4, "8 MB in {pages} pages");
}

#[tokio::test]
async fn pages_that_nobody_takes_hold_up_pages_alone() {
    let world = World::start().await;
    world.placed().await;
    let open = async || world.open("/internal/events").await;
    let mut untaken = Vec::new();
    let refused = loop {
        let answer = open().await;
        if answer.status() != StatusCode::OK {
            break answer;
        }
        untaken.push(answer);
        assert!(untaken.len() < 100, "pages are held without a bound");
    };
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    world.ask("GET", "/internal/events", &[], "").await.is_problem(503, "overloaded");
    // All permits of the log are taken, and everything else goes on.
    world.placed().await;
    assert_eq!(world.ask("GET", "/products/prod-1", &[], "").await.status, StatusCode::OK);
    untaken.pop();
    assert_eq!(world.ask("GET", "/internal/events", &[], "").await.status, StatusCode::OK);
}

#[tokio::test]
async fn pages_that_take_long_hold_up_no_look_up_and_a_third_one_is_refused() {
    let world = World::start().await;
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("lock table events in access exclusive mode").execute(&mut *lock).await.unwrap();
    let page = || world.ask("GET", "/internal/events", &[], "");
    let meanwhile = async {
        eventually(Duration::from_secs(10), "two pages are being read", || async {
            let waiting = "select count(*) from pg_stat_activity where datname = current_database()
                           and wait_event_type = 'Lock' and query like '%octet_length(payload)%'";
            match world.count(waiting).await {
                2 => Ok(()),
                count => Err(format!("{count} are")),
            }
        })
        .await;
        page().await.is_problem(503, "overloaded");
        let began = Instant::now();
        assert_eq!(world.ask("GET", "/products", &[], "").await.status, StatusCode::OK);
        let put = world.ask("PUT", "/products/prod-1", &[], r#"{"unit_price":1}"#).await;
        assert_eq!(put.status, StatusCode::OK, "{}", put.text);
        assert!(began.elapsed() < Duration::from_secs(1), "look-ups took {:?}", began.elapsed());
        lock.rollback().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(page(), page(), meanwhile);
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn thirty_two_readers_of_the_log_slow_no_order() {
    let world = World::start().await;
    join_all((0..500).map(|n| world.executor.execute(new_order(&format!("customer-{n}"))))).await;
    let readers = join_all((0..32).map(|_| async {
        for _ in 0..10 {
            let page = world.ask("GET", "/internal/events?limit=5000", &[], "").await;
            assert!(page.status == StatusCode::OK || page.json()["code"] == "overloaded", "{}", page.text);
        }
    }));
    let orders = async {
        let mut slowest = Duration::ZERO;
        for n in 0..30 {
            let began = Instant::now();
            let body = format!(r#"{{"customer_id":"c","items":[{{"sku":"never-asked-{n}","quantity":1}}]}}"#);
            assert_eq!(world.post("/orders", &body).await.status, StatusCode::CREATED);
            slowest = slowest.max(began.elapsed());
        }
        slowest
    };
    let (_pages, slowest) = tokio::join!(readers, orders);
    assert!(slowest < Duration::from_secs(2), "an order took {slowest:?}");
}
