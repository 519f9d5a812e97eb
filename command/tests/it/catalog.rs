//! Prices under load: asked once for all, used while they are asked for again, and never older than they may be.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use chassis::postgres;
use chassis::testkit::eventually;
use command::catalog::{Catalog, Error};
use domain::Sku;
use futures_util::future::join_all;
use sqlx::{Postgres, Transaction};
use tokio::time::Instant;

use crate::world::{World, money, usd};

fn order(sku: &str) -> String {
    format!(r#"{{"customer_id":"c","items":[{{"sku":"{sku}","quantity":1}}]}}"#)
}

fn skus(name: &str) -> BTreeSet<Sku> {
    BTreeSet::from([name.parse().unwrap()])
}

/// Keeps everybody from reading products until it is rolled back.
async fn locked(world: &World) -> Transaction<'static, Postgres> {
    let mut lock = world.pool.begin().await.unwrap();
    sqlx::query("lock table products in access exclusive mode").execute(&mut *lock).await.unwrap();
    lock
}

/// How many sessions wait for the prices of orders.
async fn questions_in_flight(world: &World) -> i64 {
    world
        .count(
            "select count(*) from pg_stat_activity
             where datname = current_database() and wait_event_type = 'Lock' and query like '%sku = any(%'",
        )
        .await
}

#[tokio::test]
async fn hundreds_who_want_the_same_prices_ask_once() {
    let world = World::start().await;
    let lock = locked(&world).await;
    let orders = join_all((0..512).map(|n| {
        let body = order(["fresh-1", "fresh-2"][n % 2]);
        let world = &world;
        async move { world.post("/orders", &body).await }
    }));
    let release = async {
        eventually(Duration::from_secs(10), "a question waits", || async {
            let questions = questions_in_flight(&world).await;
            assert!(questions <= 1, "{questions} questions at once");
            if questions == 1 { Ok(()) } else { Err(format!("{questions} wait")) }
        })
        .await;
        assert_eq!(questions_in_flight(&world).await, 1, "one question for all");
        lock.rollback().await.unwrap();
    };
    let (orders, ()) = tokio::join!(orders, release);
    for order in orders {
        assert_eq!(order.status, StatusCode::CREATED, "{}", order.text);
    }
    world.assert_consistent().await;
}

#[tokio::test]
async fn an_old_price_is_used_while_it_is_asked_for_again() {
    let world = World::start().await;
    let body = order("prod-1");
    assert_eq!(world.post("/orders", &body).await.status, StatusCode::CREATED);
    let lock = locked(&world).await;
    // Nobody can read the price now, and orders go on until and while somebody tries to.
    eventually(Duration::from_secs(10), "the price is asked for again", || async {
        let began = Instant::now();
        assert_eq!(world.post("/orders", &body).await.status, StatusCode::CREATED);
        assert!(began.elapsed() < Duration::from_secs(1), "an order waited for {:?}", began.elapsed());
        if questions_in_flight(&world).await == 1 { Ok(()) } else { Err("nobody asks".to_owned()) }
    })
    .await;
    assert_eq!(world.post("/orders", &body).await.status, StatusCode::CREATED);
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn an_order_after_a_change_has_the_changed_price() {
    let world = World::start().await;
    let body = order("prod-1");
    for cents in 1..100 {
        let changed = format!(r#"{{"unit_price":"0.{cents:02}"}}"#);
        let change = world.ask("PUT", "/products/prod-1", &[], &changed);
        // Others ask for the price at the same time, before and after.
        let others = join_all((0..4).map(|_| world.post("/orders", &body)));
        let (change, _others) = tokio::join!(change, others);
        assert_eq!(change.status, StatusCode::OK, "{}", change.text);
        let order = world.post("/orders", &body).await;
        assert!(order.text.contains(&format!("\"total\":0.{cents:02}")), "after {changed}: {}", order.text);
    }
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_the_trouble_of_its_own_product() {
    let world = World::start().await;
    let insert = "insert into products (sku, unit_price_minor, currency) values ('broken', 1, 'no currency')";
    sqlx::query(insert).execute(&world.pool).await.unwrap();
    let lock = locked(&world).await;
    let (broken, sound) = (order("broken"), order("prod-2"));
    let orders = join_all([&broken, &sound, &broken, &sound].map(|body| world.post("/orders", body)));
    let release = async {
        eventually(Duration::from_secs(10), "a question waits", || async {
            if questions_in_flight(&world).await == 1 { Ok(()) } else { Err("none".to_owned()) }
        })
        .await;
        lock.rollback().await.unwrap();
    };
    let (orders, ()) = tokio::join!(orders, release);
    for (place, answer) in orders.iter().enumerate() {
        if place % 2 == 0 {
            answer.is_problem(500, "internal");
            assert_eq!(answer.json()["outcome"], "not-executed");
        } else {
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn more_questions_than_there_is_room_for_are_refused_as_overload() {
    let world = World::start().await;
    let pool = |connections| postgres::pool(world.connect.clone(), connections);
    let (catalog, prices) = Catalog::new(pool(1), pool(1), usd(), Some(money(1000)));
    let loader = tokio::spawn(prices.run());
    let lock = locked(&world).await;
    // SKUs that nobody has asked for, so that memory is of no help.
    let refused = AtomicUsize::new(0);
    let asked = join_all((0..8_000).map(|n| {
        let (catalog, refused) = (&catalog, &refused);
        async move {
            match catalog.prices(skus(&format!("random-{n}"))).await {
                Err(Error::Overloaded) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                answer => drop(answer.unwrap()),
            }
        }
    }));
    let release = async {
        eventually(Duration::from_secs(10), "the queue is full", || async {
            assert!(questions_in_flight(&world).await <= 1);
            if refused.load(Ordering::Relaxed) > 0 { Ok(()) } else { Err("all found room".to_owned()) }
        })
        .await;
        lock.rollback().await.unwrap();
    };
    tokio::join!(asked, release);
    assert!(refused.load(Ordering::Relaxed) < 8_000, "nobody was answered");
    assert!(catalog.prices(skus("random-next")).await.is_ok(), "and it goes on");
    drop(catalog);
    loader.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_busy_pool_is_told_from_a_database_that_is_away() {
    let world = World::start().await;
    let pool = || postgres::pool(world.connect.clone(), 1);
    let (catalog, _prices) = Catalog::new(pool(), pool(), usd(), None);
    let lock = locked(&world).await;
    let next = async {
        // In its turn only after the first.
        tokio::task::yield_now().await;
        let next = catalog.list(None, 1).await;
        lock.rollback().await.unwrap();
        next
    };
    let (first, next) = tokio::join!(catalog.list(None, 1), next);
    assert!(first.is_ok(), "{first:?}");
    assert!(matches!(next, Err(Error::Overloaded)), "{next:?}");

    let away = world.connect.clone().port(1);
    let pool = || postgres::pool(away.clone(), 1);
    let (catalog, prices) = Catalog::new(pool(), pool(), usd(), None);
    tokio::spawn(prices.run());
    let (product, prices) = ("any".parse().unwrap(), catalog.prices(skus("any")));
    let (product, prices) = tokio::join!(catalog.product(&product), prices);
    assert!(matches!(product, Err(Error::Database(_))), "{product:?}");
    assert!(matches!(prices, Err(Error::Database(_))), "{prices:?}");
}
