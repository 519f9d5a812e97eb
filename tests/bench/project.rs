//! The projection: the projector's own path against the rows that it writes, made beforehand, into the same tables.

use std::time::{Duration, Instant};

use chassis::config::Secret;
use chassis::kafka::{Brokers, TopicSpec};
use chassis::testkit::TestDatabase;
use query::freshness::Freshness;
use query::intake::Incoming;
use query::progress::Progress;
use query::projector::Projector;
use query::reader::{BATCH_RECORDS_MAX, TopicReader};
use query::store::{self, Opened, postgres};
use rusqlite::Connection;

use crate::Plan;
use crate::events::{NewOrder, ORDERS_OF_CUSTOMER, PARTITIONS, new_order, usd};
use crate::floor::{self, Row as FloorRow};
use crate::process::{Cost, Meter};
use crate::report::{Row, median};

/// What our own writer keeps to while much is written.
const PRAGMAS: &str = "pragma journal_mode = wal; pragma synchronous = normal; pragma foreign_keys = on; pragma cache_size = -65536; pragma temp_store = memory; pragma mmap_size = 0; pragma wal_autocheckpoint = 16384";
/// Events of the design that commits each by itself.
const NAIVE_EVENTS: u64 = 2_000;

/// A projector over a store of its own, to which records are handed by the caller.
async fn projector(url: &Secret) -> Projector {
    let Opened { mut writer, keeper, .. } = store::open(url).await.unwrap();
    writer.migrate().await.unwrap();
    if let Some(keeper) = keeper {
        assert!(keeper.step().await.unwrap(), "the lease is free");
        tokio::spawn(keeper.run());
    }
    let spec = TopicSpec { name: "orders.events".into(), partitions: PARTITIONS, replication: 1 };
    let reader = TopicReader::new(Brokers("127.0.0.1:1".into()), spec);
    Projector::new(writer, reader, usd(), Freshness::default(), Progress::default())
}

fn batches(events: u64) -> impl Iterator<Item = Vec<(u64, NewOrder)>> {
    let batch = BATCH_RECORDS_MAX as u64;
    (0..events.div_ceil(batch)).map(move |at| {
        let numbers = at * batch..events.min((at + 1) * batch);
        numbers.map(|n| (n, new_order(n, events, ORDERS_OF_CUSTOMER))).collect()
    })
}

/// Our projector over all of it, each batch decoded while the one before is written, as it is when the topic has more; only
/// the projection is timed, not the making of records.
async fn round_of_ours(url: &Secret, events: u64) -> (f64, Cost) {
    let mut projector = projector(url).await;
    let (mut took, meter) = (Duration::ZERO, Meter::own());
    let mut decoded = Vec::new();
    let last = std::iter::once(Vec::new());
    for batch in batches(events).chain(last) {
        let records = batch.iter().map(|(n, order)| order.record(*n)).collect();
        let started = Instant::now();
        let decoding = tokio::spawn(Incoming::read_beside(records, usd()));
        let incoming = std::mem::take(&mut decoded);
        if !incoming.is_empty() {
            let handed_over = incoming.len();
            assert_eq!(projector.apply_read(incoming).await.unwrap().applied, handed_over);
        }
        decoded = decoding.await.unwrap();
        took += started.elapsed();
    }
    (events as f64 / took.as_secs_f64(), meter.read())
}

/// The same rows, their documents all alike in size.
fn rows(batch: Vec<(u64, NewOrder)>, document: &str) -> Vec<FloorRow> {
    batch.into_iter().map(|(n, order)| FloorRow { order, document: document.to_owned(), n }).collect()
}

fn floor_sqlite(path: &str, events: u64, document: &str, batch_max: usize) -> f64 {
    let mut connection = Connection::open(path).unwrap();
    connection.execute_batch(PRAGMAS).unwrap();
    let mut took = Duration::ZERO;
    for batch in batches(events) {
        let rows = rows(batch, document);
        let started = Instant::now();
        for rows in rows.chunks(batch_max) {
            floor::write_sqlite(&mut connection, rows);
        }
        took += started.elapsed();
    }
    events as f64 / took.as_secs_f64()
}

async fn floor_postgres(database: &TestDatabase, events: u64, document: &str, batch_max: usize) -> f64 {
    let pool = database.pool();
    let mut took = Duration::ZERO;
    for batch in batches(events) {
        let rows = rows(batch, document);
        let started = Instant::now();
        for rows in rows.chunks(batch_max) {
            floor::write_postgres(&pool, rows).await;
        }
        took += started.elapsed();
    }
    events as f64 / took.as_secs_f64()
}

/// What PostgreSQL takes of new orders, a statement for each table, with all indexes.
pub(crate) async fn limit_of_postgres(events: u64) -> f64 {
    let document = new_order(0, events, ORDERS_OF_CUSTOMER).message;
    floor_postgres(&empty().await, events, &document, usize::MAX).await
}

/// A file in `folder` with our tables and nothing in them.
pub(crate) async fn migrated(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("orders.db").display().to_string();
    let Opened { mut writer, .. } = store::open(&Secret::new(format!("sqlite://{path}"))).await.unwrap();
    writer.migrate().await.unwrap();
    writer.close().await.unwrap();
    path
}

/// The document of an order as the projection makes it.
fn document(path: &str) -> String {
    let connection = Connection::open(path).unwrap();
    connection.query_row("select document from orders limit 1", [], |row| row.get(0)).unwrap()
}

/// The figures of one store: ours, the floor, the naive design.
#[derive(Debug, Default)]
struct Figures {
    rates: [Vec<f64>; 3],
    costs: Vec<Cost>,
}

impl Figures {
    fn add(&mut self, (ours, cost): (f64, Cost), floor: f64, naive: f64) {
        for (rates, rate) in self.rates.iter_mut().zip([ours, floor, naive]) {
            rates.push(rate);
        }
        self.costs.push(cost);
    }

    fn row(self, path: &'static str, limit_name: &'static str, goal: &'static str) -> Row {
        let [ours, floor, naive] = self.rates.map(median);
        let cost = Cost::median(&self.costs);
        Row::new(path, ours, "ev/s").limit(floor, limit_name).naive(naive).cost(&cost).at_least(0.8, floor, goal)
    }
}

/// SQLite, then PostgreSQL.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let events = if plan.quick { 60_000 } else { 200_000 };
    let (mut sqlite, mut postgres) = (Figures::default(), Figures::default());
    for _round in 0..plan.rounds {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let path = migrated(&folders[0]).await;
        let ours = round_of_ours(&Secret::new(format!("sqlite://{path}")), events).await;
        let document = document(&path);
        let floor = floor_sqlite(&migrated(&folders[1]).await, events, &document, usize::MAX);
        let naive = floor_sqlite(&migrated(&folders[2]).await, NAIVE_EVENTS, &document, 1);
        sqlite.add(ours, floor, naive);

        let databases = [empty().await, empty().await, empty().await];
        let ours = round_of_ours(&databases[0].url(), events).await;
        let floor = floor_postgres(&databases[1], events, &document, usize::MAX).await;
        let naive = floor_postgres(&databases[2], NAIVE_EVENTS, &document, 1).await;
        postgres.add(ours, floor, naive);
    }
    let fast = Row::new("project, SQLite, at all", median(sqlite.rates[0].clone()), "ev/s");
    vec![
        sqlite.row("project, SQLite", "the same rows, prepared statements", "0.8 of the floor"),
        fast.at_least(1.0, 100_000.0, "100,000/s"),
        postgres.row("project, PostgreSQL", "the same rows, an unnest per table", "0.8 of the floor"),
    ]
}

async fn empty() -> TestDatabase {
    TestDatabase::create(&postgres::MIGRATOR).await
}
