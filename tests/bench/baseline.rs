//! The designs that ours are compared with, behind the same HTTP server and layers as ours.

use std::str::FromStr as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use chassis::config::Secret;
use chassis::http::extract::{Json, OptionalJson};
use chassis::metrics::Metrics;
use chassis::postgres;
use serde::Deserialize;
use sqlx::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use uuid::Uuid;

use crate::rows::{PAYLOAD, STATE};

/// Requests of the naive design share this many connections: its best on two cores.
pub(crate) const NAIVE_CONNECTIONS: u32 = 16;
/// The same number of readers as ours.
const READERS: u32 = 8;

/// An answer of the size of ours to a new order.
const ANSWER: &str = r#"{"order_id":"0193a1b2-0000-7000-8000-000000000001","status":"CREATED","version":1,"customer_id":"customer-1","items":[{"sku":"prod-1","quantity":2,"unit_price":15.00},{"sku":"prod-2","quantity":1,"unit_price":12.50}],"total":42.50,"currency":"USD"}"#;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsed like ours, and not looked at")]
struct Item {
    sku: String,
    quantity: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "parsed like ours, and not looked at")]
struct NewOrder {
    customer_id: String,
    items: Vec<Item>,
}

/// Routes over a PostgreSQL for commands, or over a SQLite file of ours for reads.
pub(crate) async fn router(database: &str) -> Router {
    let shared = Metrics::install().router();
    let constant = Router::new()
        .route("/constant/{bytes}", get(constant))
        .route("/constant", post(parse_only))
        .route("/health/live", get(|| async { "" }));
    let routes = if database.starts_with("sqlite:") {
        let options = SqliteConnectOptions::from_str(database).unwrap().read_only(true);
        let pool = SqlitePoolOptions::new().max_connections(READERS).test_before_acquire(false);
        let pool = pool.connect_with(options).await.unwrap();
        let file = Arc::<str>::from(database.trim_start_matches("sqlite://"));
        Router::new()
            .route("/orders/{id}", get(read_order))
            .with_state(pool)
            .merge(Router::new().route("/lists/{customer}", get(read_list)).with_state(file))
    } else {
        let connect = postgres::connect_options(&Secret::new(database), "bench-naive", None).unwrap();
        let pool = postgres::pool(connect, NAIVE_CONNECTIONS);
        Router::new().route("/orders", post(create)).route("/orders/{id}/pay", post(pay)).with_state(pool)
    };
    shared.merge(constant).merge(routes)
}

fn json(body: impl Into<axum::body::Body>) -> Response {
    ([(CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// As many bytes as asked for, and nothing else.
async fn constant(Path(bytes): Path<usize>) -> Response {
    json("x".repeat(bytes))
}

/// A command that is parsed and answered, and nothing else.
async fn parse_only(Json(_order): Json<NewOrder>) -> Response {
    (axum::http::StatusCode::CREATED, json(ANSWER)).into_response()
}

/// A transaction of one statement per table: what most would write first.
async fn create(State(pool): State<PgPool>, Json(_order): Json<NewOrder>) -> Response {
    let order_id = Uuid::now_v7();
    place(&pool, order_id).await;
    (axum::http::StatusCode::CREATED, [(LOCATION, format!("/orders/{order_id}"))], json(ANSWER)).into_response()
}

/// Places an order in the naive way.
pub(crate) async fn place(pool: &PgPool, order_id: Uuid) {
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at) values ($1, 1, $2, 'OrderCreated', 2, $3, now())")
        .bind(order_id).bind(Uuid::now_v7()).bind(PAYLOAD).execute(&mut *transaction).await.unwrap();
    sqlx::query(
        "insert into orders (order_id, version, status, state, state_revision) values ($1, 1, 'CREATED', $2, 1)",
    )
    .bind(order_id)
    .bind(STATE)
    .execute(&mut *transaction)
    .await
    .unwrap();
    sqlx::query("insert into outbox (order_id, version) values ($1, 1)")
        .bind(order_id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

async fn pay(State(pool): State<PgPool>, Path(order_id): Path<Uuid>, _body: OptionalJson<Item>) -> Response {
    advance(&pool, order_id).await;
    json(ANSWER)
}

/// Pays an order in the naive way: lock, look, write.
pub(crate) async fn advance(pool: &PgPool, order_id: Uuid) {
    let mut transaction = pool.begin().await.unwrap();
    let (version, state): (i32, String) =
        sqlx::query_as("select version, state from orders where order_id = $1 for update")
            .bind(order_id)
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
    let _decided: serde_json::Value = serde_json::from_str(&state).unwrap();
    sqlx::query("update orders set version = $2, status = 'PAID', state = $3, updated_at = now() where order_id = $1")
        .bind(order_id)
        .bind(version + 1)
        .bind(STATE)
        .execute(&mut *transaction)
        .await
        .unwrap();
    sqlx::query("insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at) values ($1, $2, $3, 'OrderPaid', 1, $4, now())")
        .bind(order_id).bind(version + 1).bind(Uuid::now_v7()).bind(PAYLOAD)
        .execute(&mut *transaction).await.unwrap();
    sqlx::query("insert into outbox (order_id, version) values ($1, $2)")
        .bind(order_id)
        .bind(version + 1)
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
}

/// A query per request: the stored document, through the driver's pool.
async fn read_order(State(pool): State<SqlitePool>, Path(id): Path<Uuid>) -> Response {
    let document: String = sqlx::query_scalar("select document from orders where order_id = ?1")
        .bind(id.as_bytes().as_slice())
        .fetch_one(&pool)
        .await
        .unwrap();
    json(document)
}

thread_local! {
    static READER: std::cell::RefCell<Option<rusqlite::Connection>> = const { std::cell::RefCell::new(None) };
}

/// The stored documents of a customer's newest orders, by a prepared statement on the thread that serves.
async fn read_list(State(file): State<Arc<str>>, Path(customer): Path<String>) -> Response {
    let body = READER.with_borrow_mut(|reader| {
        let connection = reader.get_or_insert_with(|| rusqlite::Connection::open(&*file).unwrap());
        let mut statement = connection
            .prepare_cached(
                "select document from orders where customer_id = ?1 order by created_at desc, order_id desc limit 50",
            )
            .unwrap();
        let mut rows = statement.query([&customer]).unwrap();
        let mut body = String::from("[");
        while let Some(row) = rows.next().unwrap() {
            if body.len() > 1 {
                body.push(',');
            }
            body.push_str(row.get_ref(0).unwrap().as_str().unwrap());
        }
        body.push(']');
        body
    });
    json(body)
}
