//! Appending events: the executor against a transaction per command and against what PostgreSQL takes at most.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::postgres;
use chassis::testkit::TestDatabase;
use chrono::Utc;
use command::api;
use command::executor::{Executor, Limits, Request, Setup};
use command::idempotency::Key;
use domain::order::{DraftLine, OrderCommand};
use domain::{Currency, Metadata, Money, OrderId};
use futures_util::future::join_all;
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::process::{Cost, Meter};
use crate::report::{Row, median, percentile_ms};
use crate::rows::{INSERT_500, PAYLOAD, STATE};
use crate::{Plan, baseline};

pub(crate) const CALLERS: usize = 256;
/// Callers that pay orders.
const PAYING_CALLERS: usize = 64;

/// An executor over a database of its own.
pub(crate) struct Ours {
    executor: Executor,
    _lanes: JoinSet<()>,
    pub(crate) database: TestDatabase,
}

fn usd() -> Currency {
    "USD".parse().unwrap()
}

pub(crate) async fn ours() -> Ours {
    let database = TestDatabase::create(&command::MIGRATOR).await;
    let (executor, lanes) = executor(&database);
    Ours { executor, _lanes: lanes, database }
}

/// An executor over this database, with its lanes running.
pub(crate) fn executor(database: &TestDatabase) -> (Executor, JoinSet<()>) {
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
    (executor, running)
}

/// Orders that a round may pay.
type Orders = Arc<Mutex<Vec<Uuid>>>;

pub(crate) fn payment(order: Uuid) -> Request {
    let command = OrderCommand::Pay { payment_reference: None };
    Request { order_id: OrderId(order), command, ..create(false) }
}

pub(crate) fn create(keyed: bool) -> Request {
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
        expected: Vec::new(),
        key: keyed.then(|| Key::new(Uuid::now_v7().to_string(), "POST", "/orders", &[], b"{}")),
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

pub(crate) async fn round_of_ours(ours: &Ours, callers: usize, round: Duration, keyed: bool) -> (f64, Vec<f64>) {
    let executor = ours.executor.clone();
    closed_loop(callers, round, move || {
        let executor = executor.clone();
        async move {
            let answer = executor.execute(create(keyed)).await.unwrap();
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
        async move { baseline::place(&pool, Uuid::now_v7()).await }
    })
    .await
}

/// One caller: ours, naive, ours with keys, in slices of a round by turns. What the many wrote before is still on its way to the disk,
/// and whoever came first would wait for that alone.
async fn rounds_of_one(ours: &Ours, naive: &PgPool, round: Duration) -> [(f64, Vec<f64>); 3] {
    const SLICES: u32 = 8;
    let slice = round / SLICES;
    let mut rounds: [(f64, Vec<f64>); 3] = Default::default();
    for _slice in 0..SLICES {
        let slices = [
            round_of_ours(ours, 1, slice, false).await,
            round_of_naive(naive, 1, slice).await,
            round_of_ours(ours, 1, slice, true).await,
        ];
        for ((rate, latencies), (rate_of_slice, latencies_of_slice)) in rounds.iter_mut().zip(slices) {
            *rate += rate_of_slice / f64::from(SLICES);
            latencies.extend(latencies_of_slice);
        }
    }
    rounds
}

/// Orders that are there to be paid.
async fn placed(pool: &PgPool, orders: usize) -> Orders {
    let ids: Vec<Uuid> =
        sqlx::query_scalar("select order_id from orders where version = 1 order by order_id desc limit $1")
            .bind(i64::try_from(orders).unwrap())
            .fetch_all(pool)
            .await
            .unwrap();
    Arc::new(Mutex::new(ids))
}

/// Commands on existing orders, until the time is over or all orders are paid.
async fn pay<F, Fut>(orders: Orders, round: Duration, advance: F) -> f64
where
    F: Fn(Uuid) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let started = Instant::now();
    let tasks = (0..PAYING_CALLERS).map(|_| {
        let (orders, advance) = (Arc::clone(&orders), advance.clone());
        tokio::spawn(async move {
            let mut paid = 0_u32;
            while started.elapsed() < round {
                let next = orders.lock().unwrap().pop();
                let Some(order) = next else { break };
                advance(order).await;
                paid += 1;
            }
            paid
        })
    });
    let paid: u32 = join_all(tasks).await.into_iter().map(Result::unwrap).sum();
    f64::from(paid) / started.elapsed().as_secs_f64()
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

/// How much the server has written to its log so far; nobody else should use it.
async fn wal_bytes(pool: &PgPool) -> f64 {
    let bytes = sqlx::query_scalar("select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8").fetch_one(pool);
    bytes.await.unwrap()
}

/// The figures of all rounds.
#[derive(Debug, Default)]
struct Figures {
    many: [Vec<f64>; 3],
    many_p99_ms: Vec<f64>,
    one: [Vec<f64>; 3],
    one_p50_ms: [Vec<f64>; 3],
    paid: [Vec<f64>; 2],
    wal_bytes: [Vec<f64>; 2],
    costs: Vec<Cost>,
}

/// Many callers, then one, then many on existing orders.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let ours = ours().await;
    let (naive_database, limit_database) =
        (TestDatabase::create(&command::MIGRATOR).await, TestDatabase::create(&command::MIGRATOR).await);
    let connect = |database: &TestDatabase| postgres::connect_options(&database.url(), "bench", None).unwrap();
    let naive = postgres::pool(connect(&naive_database), baseline::NAIVE_CONNECTIONS);
    let limit = postgres::pool(connect(&limit_database), 2);
    let looking = postgres::pool(connect(&ours.database), 1);

    let mut figures = Figures::default();
    for _round in 0..plan.rounds {
        let (meter, from) = (Meter::own(), wal_bytes(&looking).await);
        let (rate, mut latencies) = round_of_ours(&ours, CALLERS, plan.round, false).await;
        figures.costs.push(meter.read());
        let commands = latencies.len() as f64;
        figures.wal_bytes[0].push((wal_bytes(&looking).await - from) / commands);
        figures.many[0].push(rate);
        figures.many_p99_ms.push(percentile_ms(&mut latencies, 99));
        let from = wal_bytes(&looking).await;
        let (rate, latencies) = round_of_naive(&naive, CALLERS, plan.round).await;
        figures.many[1].push(rate);
        figures.wal_bytes[1].push((wal_bytes(&looking).await - from) / latencies.len() as f64);
        figures.many[2].push(round_of_limit(&limit, plan.round).await);
        for (at, (rate, mut latencies)) in rounds_of_one(&ours, &naive, plan.round).await.into_iter().enumerate() {
            figures.one[at].push(rate);
            figures.one_p50_ms[at].push(percentile_ms(&mut latencies, 50));
        }
        let executor = ours.executor.clone();
        let by_us = move |order| {
            let executor = executor.clone();
            async move { assert_eq!(executor.execute(payment(order)).await.unwrap().reply.status, 200) }
        };
        let orders = placed(&looking, 200_000).await;
        figures.paid[0].push(pay(orders, plan.round, by_us).await);
        let pool = naive.clone();
        let by_naive = move |order| {
            let pool = pool.clone();
            async move { baseline::advance(&pool, order).await }
        };
        let orders = placed(&naive, 200_000).await;
        figures.paid[1].push(pay(orders, plan.round, by_naive).await);
    }
    rows(figures)
}

fn rows(Figures { many, many_p99_ms, one, one_p50_ms, paid, wal_bytes, costs }: Figures) -> Vec<Row> {
    let cost = Cost::median(&costs);
    let p99_ms = median(many_p99_ms);
    let [ours, naive, limit] = many.map(median);
    let [one, one_naive, keyed] = one.map(median);
    let [one_p50_ms, naive_p50_ms, keyed_p50_ms] = one_p50_ms.map(median);
    let [paid, paid_naive] = paid.map(median);
    let [wal, wal_naive] = wal_bytes.map(median);
    let row = |path| {
        Row::new(path, ours, "cmd/s").limit(limit, "server-side insert, 500 a transaction").naive(naive).cost(&cost)
    };
    vec![
        row("append, 256 callers").at_least(0.85, limit, "0.85 of the limit"),
        row("append, 256 callers, over naive").at_least(8.0, naive, "8x naive"),
        Row::new("append, 256 callers, p99", p99_ms, "ms").at_most(1.0, 15.0, "at most 15 ms"),
        Row::new("append, 256 callers, write-ahead log", wal, "B/cmd").naive(wal_naive),
        Row::new("append, one caller", one, "cmd/s").naive(one_naive).at_least(1.3, one_naive, "1.3x naive"),
        Row::new("append, one caller, p50", one_p50_ms, "ms").naive(naive_p50_ms).at_most(
            0.8,
            naive_p50_ms,
            "at most 0.8 of naive",
        ),
        Row::new("append, one caller, with a key", keyed, "cmd/s").naive(one_naive).at_least(
            1.0,
            one_naive,
            "naive, which has no keys",
        ),
        Row::new("append, one caller, with a key, p50", keyed_p50_ms, "ms").naive(naive_p50_ms),
        Row::new("append, existing orders, 64 callers", paid, "cmd/s")
            .naive(paid_naive)
            .at_least(5.0, paid_naive, "5x naive"),
    ]
}
