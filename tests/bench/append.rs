//! Appending events: the executor against a transaction per command and against what PostgreSQL takes at most.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::postgres;
use chassis::testkit::TestDatabase;
use chrono::Utc;
use command::api;
use command::executor::{Executor, Limits, Request, Setup};
use domain::order::{DraftLine, OrderCommand};
use domain::{Currency, Metadata, Money, OrderId};
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::Plan;
use crate::report::{Row, median, percentile_ms};
use crate::rows::{INSERT_500, PAYLOAD, STATE};

const CALLERS: usize = 256;
/// Callers of the naive design share this many connections: its best on two cores.
const NAIVE_CONNECTIONS: u32 = 16;

struct Ours {
    executor: Executor,
    _lanes: JoinSet<()>,
    _database: TestDatabase,
}

fn usd() -> Currency {
    "USD".parse().unwrap()
}

async fn ours() -> Ours {
    let database = TestDatabase::create(&command::MIGRATOR).await;
    let connect = postgres::connect_options(&database.url(), "bench", Some("order_command")).unwrap();
    let (executor, lanes) = Executor::new(&Setup {
        connect,
        limits: Limits {
            lanes: 2,
            queue_commands_max: 1_024,
            batch_commands_max: 256,
            command_deadline: Duration::from_secs(10),
            flush_deadline: Duration::from_secs(8),
            resolve_deadline: Duration::from_secs(10),
        },
        render: api::render,
        committed: Arc::new(Notify::new()),
        default_currency: usd(),
    });
    let mut running = JoinSet::new();
    for lane in lanes {
        running.spawn(async move { lane.run().await.unwrap() });
    }
    Ours { executor, _lanes: running, _database: database }
}

fn create() -> Request {
    let line = |sku: &str, quantity, minor| DraftLine {
        sku: sku.parse().unwrap(),
        quantity,
        unit_price: Some(Money::from_minor(minor, usd()).unwrap()),
    };
    let now = Utc::now();
    Request {
        order_id: OrderId(Uuid::now_v7()),
        command: OrderCommand::Create {
            customer_id: "customer-1".parse().unwrap(),
            lines: vec![line("prod-1", 2, 1500), line("prod-2", 1, 1250)],
            at: now,
        },
        expected: None,
        key: None,
        metadata: Metadata::default(),
        occurred_at: now,
    }
}

/// Commands a second and latencies of `callers` that ask again as soon as they are answered.
async fn closed_loop<F, Fut>(callers: usize, round: Duration, ask: F) -> (f64, Vec<f64>)
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let started = Instant::now();
    let tasks = (0..callers).map(|_| {
        let ask = ask.clone();
        tokio::spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < round {
                let asked = Instant::now();
                ask().await;
                latencies.push(asked.elapsed().as_secs_f64());
            }
            latencies
        })
    });
    let latencies: Vec<f64> = join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect();
    (latencies.len() as f64 / started.elapsed().as_secs_f64(), latencies)
}

async fn round_of_ours(ours: &Ours, callers: usize, round: Duration) -> (f64, Vec<f64>) {
    let executor = ours.executor.clone();
    closed_loop(callers, round, move || {
        let executor = executor.clone();
        async move {
            let answer = executor.execute(create()).await.unwrap();
            assert_eq!(answer.reply.status, 201);
        }
    })
    .await
}

/// One transaction per command, one statement for each table: what most would write first.
async fn round_of_naive(pool: &PgPool, callers: usize, round: Duration) -> (f64, Vec<f64>) {
    let pool = pool.clone();
    closed_loop(callers, round, move || {
        let pool = pool.clone();
        async move {
            let (order_id, event_id) = (Uuid::now_v7(), Uuid::now_v7());
            let mut transaction = pool.begin().await.unwrap();
            sqlx::query("insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at) values ($1, 1, $2, 'OrderCreated', 2, $3, now())")
                .bind(order_id).bind(event_id).bind(PAYLOAD).execute(&mut *transaction).await.unwrap();
            sqlx::query("insert into orders (order_id, version, status, state, state_revision) values ($1, 1, 'CREATED', $2, 1)")
                .bind(order_id).bind(STATE).execute(&mut *transaction).await.unwrap();
            sqlx::query("insert into outbox (order_id, version) values ($1, 1)")
                .bind(order_id).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    })
    .await
}

/// The same rows made by the server itself, 500 per transaction, two clients: nothing that gets rows from outside is faster.
async fn round_of_limit(pool: &PgPool, round: Duration) -> f64 {
    const ROWS: u32 = 500;
    let started = Instant::now();
    let clients = (0..2).map(|_| async {
        let mut inserted = 0_u32;
        while started.elapsed() < round {
            sqlx::query(INSERT_500).bind(PAYLOAD).bind(STATE).execute(pool).await.unwrap();
            inserted += ROWS;
        }
        inserted
    });
    let inserted: u32 = join_all(clients).await.into_iter().sum();
    f64::from(inserted) / started.elapsed().as_secs_f64()
}

/// Many callers, then one.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let ours = ours().await;
    let (naive_database, limit_database) =
        (TestDatabase::create(&command::MIGRATOR).await, TestDatabase::create(&command::MIGRATOR).await);
    let connect = |database: &TestDatabase| postgres::connect_options(&database.url(), "bench", None).unwrap();
    let naive = postgres::pool(connect(&naive_database), NAIVE_CONNECTIONS);
    let limit = postgres::pool(connect(&limit_database), 2);

    let (mut many, mut many_naive, mut many_limit, mut p99) = (vec![], vec![], vec![], vec![]);
    let (mut one, mut one_naive, mut one_p50, mut naive_p50) = (vec![], vec![], vec![], vec![]);
    for _round in 0..plan.rounds {
        let (rate, mut latencies) = round_of_ours(&ours, CALLERS, plan.round).await;
        many.push(rate);
        p99.push(percentile_ms(&mut latencies, 99));
        many_naive.push(round_of_naive(&naive, CALLERS, plan.round).await.0);
        many_limit.push(round_of_limit(&limit, plan.round).await);
        let (rate, mut latencies) = round_of_ours(&ours, 1, plan.round).await;
        one.push(rate);
        one_p50.push(percentile_ms(&mut latencies, 50));
        let (rate, mut latencies) = round_of_naive(&naive, 1, plan.round).await;
        one_naive.push(rate);
        naive_p50.push(percentile_ms(&mut latencies, 50));
    }
    rows([many, many_naive, many_limit, p99].map(median), [one, one_naive, one_p50, naive_p50].map(median))
}

fn rows([many, many_naive, many_limit, p99]: [f64; 4], [one, one_naive, one_p50, naive_p50]: [f64; 4]) -> Vec<Row> {
    let limit_name = "server-side insert, 500 a transaction, 2 clients";
    let row = |path, ours, unit, limit, naive, ratio, goal, met| Row {
        path,
        ours,
        unit,
        limit,
        limit_name,
        naive,
        ratio,
        goal,
        met,
    };
    vec![
        row(
            "append, 256 callers",
            many,
            "cmd/s",
            many_limit,
            many_naive,
            many / many_limit,
            "0.85 of the limit",
            many >= 0.85 * many_limit,
        ),
        row(
            "append, 256 callers, over naive",
            many,
            "cmd/s",
            many_limit,
            many_naive,
            many / many_naive,
            "8x naive",
            many >= 8.0 * many_naive,
        ),
        row("append, 256 callers, p99", p99, "ms", 15.0, 0.0, p99 / 15.0, "at most 15 ms", p99 <= 15.0),
        row(
            "append, one caller",
            one,
            "cmd/s",
            many_limit,
            one_naive,
            one / one_naive,
            "1.3x naive",
            one >= 1.3 * one_naive,
        ),
        row(
            "append, one caller, p50",
            one_p50,
            "ms",
            0.0,
            naive_p50,
            one_p50 / naive_p50,
            "at most 0.8 of naive",
            one_p50 <= 0.8 * naive_p50,
        ),
    ]
}
