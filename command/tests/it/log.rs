//! The event log itself: append-only, and the rest can be rebuilt from it.

use command::store;
use domain::order::OrderCommand;
use domain::{Order, OrderId, fold};
use sqlx::Executor as _;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Row};

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
