use chrono::{SubsecRound, Utc};
use domain::order::event::OrderCreated;
use domain::order::{Line, Order as Aggregate, OrderEvent};
use domain::{Decider, EventId, Money, OrderId, Recorded, Version, schema};
use futures_util::future::join_all;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use crate::world::World;
use crate::world::client::{Order, TWO_AND_ONE};

/// An order as a very slow lane would write it, up to but without its commit.
async fn writes_slowly(world: &World, customer: &str) -> (Transaction<'static, Postgres>, Order, i64) {
    let mut transaction = world.log().begin().await.unwrap();
    let order = Order { id: Uuid::now_v7(), version: 1 };
    let seq = write(&mut transaction, order.id, customer).await;
    (transaction, order, seq)
}

async fn write(connection: &mut PgConnection, order: Uuid, customer: &str) -> i64 {
    let money = |minor| Money::from_minor(minor, "USD".parse().unwrap()).unwrap();
    let created_at = Utc::now().trunc_subsecs(6);
    let line = Line { sku: "prod-1".parse().unwrap(), quantity: 2, unit_price: Some(money(1500)) };
    let event = OrderEvent::OrderCreated(OrderCreated {
        customer_id: customer.parse().unwrap(),
        lines: vec![line],
        total: money(3000),
        created_at,
    });
    let state = serde_json::to_string(&Aggregate::evolve(Aggregate::Absent, &event)).unwrap();
    let recorded = Recorded {
        event_id: EventId(Uuid::now_v7()),
        order_id: OrderId(order),
        version: Version::FIRST,
        occurred_at: created_at,
        event,
    };
    sqlx::query(
        "insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at)
         values ($1, 1, $2, 'OrderCreated', 2, $3, $4)",
    )
    .bind(order)
    .bind(recorded.event_id.0)
    .bind(schema::encode(&recorded).unwrap())
    .bind(created_at)
    .execute(&mut *connection)
    .await
    .unwrap();
    sqlx::query(
        "insert into orders (order_id, version, status, state, state_revision) values ($1, 1, 'CREATED', $2, $3)",
    )
    .bind(order)
    .bind(state)
    .bind(Aggregate::STATE_REVISION)
    .execute(&mut *connection)
    .await
    .unwrap();
    sqlx::query_scalar("insert into outbox (order_id, version) values ($1, 1) returning seq")
        .bind(order)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_low_sequence_that_commits_late_is_published() {
    let world = World::start().await;
    let (transaction, late, seq) = writes_slowly(&world, "late").await;

    let alice = world.customer("alice");
    let others = join_all((0..300).map(|_| alice.places(TWO_AND_ONE))).await;
    for order in &others {
        world.sees(*order).at(1).await;
    }
    let overtaken: i64 = sqlx::query_scalar("select count(*) from outbox where seq > $1")
        .bind(seq)
        .fetch_one(&world.log())
        .await
        .unwrap();
    assert_eq!(overtaken, 300, "all of them came after it");
    assert_eq!(world.topic.positions().await.len(), 300, "and were published before it");

    transaction.commit().await.unwrap();
    world.sees(late).at(1).await;
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn nobody_waits_for_somebody_elses_open_transaction() {
    let world = World::start().await;
    // It writes, it has a transaction id, and it stays open to the end of the test.
    let mut idler = world.log().begin().await.unwrap();
    sqlx::query("insert into products (sku, unit_price_minor, currency) values ('idle', 1, 'USD')")
        .execute(&mut *idler)
        .await
        .unwrap();

    let alice = world.customer("alice");
    for _ in 0..5 {
        let order = alice.places(TWO_AND_ONE).await;
        let paid = alice.pays(order).await;
        world.sees(paid).at(2).await;
    }
    world.is_clean().await;
    idler.rollback().await.unwrap();
    world.end().await;
}
