//! Whether it stays as fast when there is more: appending to a log, and reading from a read model, of ever more orders.

use std::ops::Range;
use std::time::{Duration, Instant};

use chassis::config::Secret;
use chassis::postgres;
use chassis::testkit::eventually;
use domain::OrderId;
use futures_util::future::join_all;
use query::store::{self, Store};
use rusqlite::{Connection, params};

use crate::Plan;
use crate::events::{NewOrder, ORDERS_OF_CUSTOMER, new_order};
use crate::load::{Client, get};
use crate::process::Process;
use crate::relay::new_topic;
use crate::report::{Row, median};
use crate::rows::{INSERT_500, PAYLOAD, STATE};
use crate::{append, roles};

/// Who reads at the same time.
const READERS: u64 = 16;
/// Rows of one transaction while filling.
const FILL_ROWS: u64 = 5_000;
/// So many times is each size measured; the median counts.
const LOOKS: usize = 3;

/// Appends to logs of growing size, then reads from read models of growing size.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let sizes: &[u64] = if plan.quick { &[10_000, 300_000] } else { &[10_000, 1_000_000, 10_000_000] };
    let (mut appended, mut read, mut started) = (Vec::new(), Vec::new(), Vec::new());
    let log = append::ours().await;
    let folder = tempfile::tempdir().unwrap();
    let path = crate::project::migrated(&folder).await;
    let mut writer = Connection::open(&path).unwrap();
    // The other indexes are not read here.
    writer
        .execute_batch(
            "pragma synchronous = off; pragma cache_size = -65536; drop index orders_newest; drop index orders_of_customer;
             drop index orders_in_status; drop index orders_by_total",
        )
        .unwrap();
    let opened = store::open(&Secret::new(format!("sqlite://{path}"))).await.unwrap();
    let mut filled = 0;
    for size in sizes {
        fill_log(&log, *size).await;
        let mut rates = Vec::new();
        for _look in 0..LOOKS {
            rates.push(append::round_of_ours(&log, 64, plan.round, false).await.0);
        }
        appended.push(median(rates));
        while filled < *size {
            let next = (filled + FILL_ROWS).min(*size);
            fill_orders(&mut writer, filled..next, *size);
            filled = next;
        }
        if *size == sizes[1] {
            started.extend(startups(&log, &path, *size).await);
        }
        let mut rates = Vec::new();
        for _look in 0..LOOKS {
            rates.push(reads(&opened.store, *size, plan).await);
        }
        read.push(median(rates));
    }
    let growth = |path, rates: &[f64], unit| {
        let [first, .., last] = rates else { panic!("one size") };
        Row::new(path, *last, unit).limit(*first, "the same with 10,000 orders").at_least(0.85, *first, "within 15 %")
    };
    started.extend([
        growth("growth, append to a large log, 64 callers", &appended, "cmd/s"),
        growth("growth, read one of many, in process", &read, "req/s"),
    ]);
    started
}

/// The rows of orders alone, in the order of their keys: what is read here.
fn fill_orders(writer: &mut Connection, numbers: Range<u64>, orders: u64) {
    let transaction = writer.transaction().unwrap();
    {
        let mut insert = transaction
            .prepare_cached("insert into orders (order_id, customer_id, status, currency, total_minor, version, created_at, document) values (?, ?, 'CREATED', 'USD', ?, 1, ?, ?)")
            .unwrap();
        for n in numbers {
            let NewOrder { order_id, customer_id, total, created_at, message, .. } =
                new_order(n, orders, ORDERS_OF_CUSTOMER);
            let at = created_at.timestamp_micros();
            insert.execute(params![order_id.0.as_bytes(), customer_id, total.minor(), at, message]).unwrap();
        }
    }
    transaction.commit().unwrap();
}

/// How long the services take from their start to being ready, with so many orders behind them.
async fn startups(log: &append::Ours, path: &str, size: u64) -> Vec<Row> {
    let topic = new_topic("bench-startup").await.name;
    let started = Instant::now();
    let command = roles::command(log.database.url().expose(), &topic, true);
    let command_s = ready(&command, started).await;
    drop(command);
    // Nothing was read from a topic into this file, so it begins at the beginning of one.
    let topic = new_topic("bench-startup").await.name;
    let started = Instant::now();
    let query = roles::query(&format!("sqlite://{path}"), &topic);
    let query_s = ready(&query, started).await;
    let row = |name: &str, seconds| {
        Row::new(format!("startup, {name}, {size} orders"), seconds, "s").at_most(1.0, 2.0, "under 2 s")
    };
    vec![row("order-command", command_s), row("order-query", query_s)]
}

async fn ready(process: &Process, started: Instant) -> f64 {
    eventually(Duration::from_secs(60), "the service is ready", || async {
        let status = Client::connect(process.addr).await.ask(|request| get(request, "/health/ready")).await.status;
        if status == 200 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    started.elapsed().as_secs_f64()
}

async fn fill_log(log: &append::Ours, size: u64) {
    let pool = postgres::pool(postgres::connect_options(&log.database.url(), "bench-fill", None).unwrap(), 1);
    // Vacuuming ten million rows takes longer than a command may.
    sqlx::query("set statement_timeout = 0").execute(&pool).await.unwrap();
    let there: i64 = sqlx::query_scalar("select count(*) from orders").fetch_one(&pool).await.unwrap();
    let missing = size.saturating_sub(u64::try_from(there).unwrap());
    for n in 0..missing.div_ceil(500) {
        // As the relay does: partitions are made ahead of the sequence.
        if n % 2_000 == 0 {
            sqlx::query("select outbox_partitions_ensure()").execute(&pool).await.unwrap();
        }
        sqlx::query(INSERT_500).bind(PAYLOAD).bind(STATE).execute(&pool).await.unwrap();
    }
    sqlx::query("vacuum analyze").execute(&pool).await.unwrap();
}

/// Reads a second of orders all over the file, past whatever is kept in memory of those read last.
async fn reads(store: &Store, size: u64, plan: Plan) -> f64 {
    let started = Instant::now();
    let readers = (0..READERS).map(|reader| {
        let store = store.clone();
        tokio::spawn(async move {
            let (mut read, mut n) = (0_u32, reader.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            while started.elapsed() < plan.round {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let order_id: OrderId = new_order((n >> 20) % size, size, ORDERS_OF_CUSTOMER).order_id;
                assert!(store.order(order_id).await.unwrap().is_some());
                read += 1;
            }
            read
        })
    });
    let read: u32 = join_all(readers).await.into_iter().map(Result::unwrap).sum();
    f64::from(read) / started.elapsed().as_secs_f64()
}
