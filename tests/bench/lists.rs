//! Lists over a million orders, in both stores: how the database goes about those of orders, and how long the first
//! page and one from the middle take. No figure to compare with: the plan is the message, and that a deep page costs
//! what the first does.

use std::time::{Duration, Instant};

use chassis::config::Secret;
use chassis::testkit::TestDatabase;
use domain::order::Status;
use domain::{Currency, OrderId};
use query::store::answer::{CancellationFilter, ListFilter, Page, Sort};
use query::store::{Error, Opened, Store, open, postgres};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use uuid::Uuid;

use crate::Plan;

const LIMIT: u32 = 50;
/// Each question is put so often; the middle counts.
const REPEATS: usize = 21;
/// So many have ordered.
const CUSTOMERS: i64 = 50_000;
const MILLION: i64 = 1_000_000;

/// The rows, as SQL over `n`: `ID`, `BODY` and `ROWS` stand for what the databases write differently. Ids ascend, as ours do.
const FILL: [&str; 6] = [
    "insert into orders (order_id, customer_id, status, currency, total_minor, version, created_at, document) \
     select ID, 'customer-' || (n * 7919 % 50000), \
     case when n % 100 = 0 then 'CREATED' when n % 10 = 1 then 'CANCELLED' else 'DELIVERED' end, \
     case when n % 10 < 7 then 'USD' else 'EUR' end, n * 7919 % 99991, 4, n * 1000, BODY from ROWS",
    "insert into order_products (sku, created_at, order_id, currency, total_minor) \
     select 'prod-' || (n % 500), n * 1000, ID, case when n % 10 < 7 then 'USD' else 'EUR' end, n * 7919 % 99991 from ROWS",
    "insert into customers (customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id) \
     select 'customer-' || n, 'USD', 20, 2, '4250', n, ID from ROWS where n <= 50000",
    "insert into daily_sales (day, currency, orders, cancellations, revenue_minor) \
     select n, 'USD', 1000, 10, '4250' from ROWS where n <= 3650",
    "insert into product_demand (sku, currency, units, revenue_minor) select 'prod-' || n, 'USD', 5, '4250' from ROWS \
     where n <= 50000",
    "insert into cancellations (day, customer_id, reason, orders) select n / 300, 'customer-' || (n * 7919 % 50000), \
     'reason ' || (n % 5), 1 from ROWS where n <= 200000",
];

fn statement(fill: &str, rows: &str, id: &str, body: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(fill.replace("ROWS", rows).replace("ID", id).replace("BODY", body))
}

async fn filled_sqlite(url: &Secret, file: &std::path::Path, orders: i64) -> Opened {
    let mut opened = open(url).await.unwrap();
    opened.writer.migrate().await.unwrap();
    let mut raw = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(file)).await.unwrap();
    let rows = format!(
        "(with recursive c (n) as (select 1 union all select n + 1 from c where n < {orders}) select n from c)"
    );
    for fill in FILL {
        let statement = statement(fill, &rows, "unhex(printf('%032x', n))", "printf('%.*c', 500, 'x')");
        sqlx::raw_sql(statement).execute(&mut raw).await.unwrap();
    }
    raw.close().await.unwrap();
    opened
}

async fn filled_postgres(database: &TestDatabase, orders: i64) -> Opened {
    let rows = format!("generate_series(1, {orders}) as n");
    for fill in FILL {
        let fill = fill.replace("n * ", "n::bigint * ");
        let statement = statement(&fill, &rows, "decode(lpad(to_hex(n), 32, '0'), 'hex')", "repeat('x', 500)");
        sqlx::raw_sql(statement).execute(&database.pool()).await.unwrap();
    }
    sqlx::raw_sql("analyze").execute(&database.pool()).await.unwrap();
    open(&database.url()).await.unwrap()
}

fn questions(orders: i64) -> Vec<(&'static str, ListFilter)> {
    let all = ListFilter::default;
    let customer_id = || Some("customer-777".parse().unwrap());
    let sku = || Some("prod-7".parse().unwrap());
    vec![
        ("all", all()),
        ("status=DELIVERED (9 of 10)", ListFilter { status: Some(Status::Delivered), ..all() }),
        ("status=CREATED (1 of 100)", ListFilter { status: Some(Status::Created), ..all() }),
        ("customer_id (20 orders)", ListFilter { customer_id: customer_id(), ..all() }),
        ("sku (2000 orders)", ListFilter { sku: sku(), ..all() }),
        ("sku, status=CREATED", ListFilter { sku: sku(), status: Some(Status::Created), ..all() }),
        ("customer_id, sku", ListFilter { customer_id: customer_id(), sku: sku(), ..all() }),
        ("min_total (1 of 1000)", ListFilter { min_total_minor: Some(99_890), currency: Some(usd()), ..all() }),
        (
            "created_from, created_to",
            ListFilter { created_from_micros: Some(orders * 400), created_to_micros: Some(orders * 600), ..all() },
        ),
    ]
}

fn usd() -> Currency {
    "USD".parse().unwrap()
}

/// The middle of several times, in milliseconds.
async fn median_ms<T>(ask: impl AsyncFn() -> Result<T, Error>) -> f64 {
    let mut times = Vec::new();
    for _ in 0..REPEATS {
        let started = Instant::now();
        ask().await.unwrap();
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times.get(REPEATS / 2).map_or(0.0, Duration::as_secs_f64) * 1000.0
}

async fn lists_of_orders(store: &Store, orders: i64) {
    for (name, filter) in questions(orders) {
        for sort in [Sort::Newest, Sort::Dearest] {
            let currency = if sort.is_by_creation() { filter.currency } else { Some(usd()) };
            let filter = ListFilter { currency, ..filter.clone() };
            let middle = if sort.is_by_creation() { orders / 2 * 1000 } else { 50_000 };
            let id = OrderId(Uuid::from_u128(u128::try_from(orders / 2).unwrap()));
            let [first, deep] = [None, Some((middle, id))].map(|after| Page { sort, after });
            let first_ms = median_ms(async || store.list(&filter, &first, LIMIT).await).await;
            let deep_ms = median_ms(async || store.list(&filter, &deep, LIMIT).await).await;
            println!("  /orders {name}, {sort:?}: first {first_ms:.2} ms, deep {deep_ms:.2} ms");
            for line in store.list_plan(&filter, &deep, LIMIT).await.unwrap() {
                println!("      {line}");
            }
        }
        let counted = median_ms(async || store.count(&filter, 100_001).await).await;
        println!("  /orders {name}: count {counted:.2} ms");
    }
}

async fn other_lists(store: &Store) {
    let customer = "customer-25000".parse().unwrap();
    let first = median_ms(async || store.customers(None, None, LIMIT).await).await;
    let deep = median_ms(async || store.customers(None, Some(&customer), LIMIT).await).await;
    println!("  /customers ({CUSTOMERS}): first {first:.2} ms, deep {deep:.2} ms");
    let first = median_ms(async || store.daily_sales(i64::MIN, i64::MAX, None, None, LIMIT).await).await;
    let deep = median_ms(async || store.daily_sales(i64::MIN, i64::MAX, None, Some((1_800, usd())), LIMIT).await).await;
    println!("  /sales/daily (3650): first {first:.2} ms, deep {deep:.2} ms");
    let sku = "prod-25000".parse().unwrap();
    let first = median_ms(async || store.products(None, None, LIMIT).await).await;
    let deep = median_ms(async || store.products(None, Some((&sku, usd())), LIMIT).await).await;
    println!("  /products (50000): first {first:.2} ms, deep {deep:.2} ms");
    for customer_id in [None, Some("customer-777".parse().unwrap())] {
        let filter = CancellationFilter { customer_id, from_day: i64::MIN, to_day: i64::MAX };
        let key = (333, "customer-777".parse().unwrap(), query::projections::cancellations::Reason::from("reason 2"));
        let first = median_ms(async || store.cancellations(&filter, None, LIMIT).await).await;
        let deep = median_ms(async || store.cancellations(&filter, Some(&key), LIMIT).await).await;
        let of = if filter.customer_id.is_some() { ", of a customer" } else { "" };
        println!("  /cancellations (200000){of}: first {first:.2} ms, deep {deep:.2} ms");
    }
}

async fn show(name: &str, opened: &Opened, orders: i64, filled: Duration) {
    println!("{name}, {orders} orders, filled in {:.0} s", filled.as_secs_f64());
    lists_of_orders(&opened.store, orders).await;
    other_lists(&opened.store).await;
}

/// Fills both stores and asks them.
pub(crate) async fn show_plans(plan: Plan) {
    let orders = if plan.quick { MILLION / 10 } else { MILLION };
    let started = Instant::now();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("orders.db");
    let url = Secret::new(format!("sqlite://{}", file.display()));
    let opened = filled_sqlite(&url, &file, orders).await;
    show("SQLite", &opened, orders, started.elapsed()).await;

    let started = Instant::now();
    let database = TestDatabase::create(&postgres::MIGRATOR).await;
    let opened = filled_postgres(&database, orders).await;
    show("PostgreSQL", &opened, orders, started.elapsed()).await;
}
