//! A read model built anew under live writes and reads: how fast, what readers meet meanwhile, and whether both stores end
//! in the same rows.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chassis::kafka::topic::end_offsets;
use chassis::testkit::{self, TestDatabase, eventually};
use clap::Parser as _;
use domain::order::OrderCommand;
use query::config::{Cli, Command};
use query::follow::Projecting;
use query::freshness::Freshness;
use query::generation::{Builder, Source};
use query::progress::Progress;
use query::rebuild::{Promoted, Rebuild};
use query::store::Generations;
use query::store::digest::Digests;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::events::PARTITIONS;
use crate::http::ORDER;
use crate::load::{Client, get, post};
use crate::process::{Cost, Meter, Process};
use crate::project::limit_of_postgres;
use crate::relay::new_topic;
use crate::report::Row;
use crate::{Plan, append, roles};

/// Commands a second meanwhile.
const WRITES_PER_S: u64 = 200;
/// Reads a second meanwhile.
const READS_PER_S: u64 = 200;
/// What is known to be there in the beginning.
const KNOWN_MAX: usize = 500;
/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(600);
/// Customers there are.
const CUSTOMERS: u64 = 50_000;
/// Events of the read model.
const EVENTS: u64 = 1_000_000;
const EVENTS_QUICK: u64 = 60_000;

/// Events that PostgreSQL is given for its limit.
const LIMIT_EVENTS: u64 = 100_000;

/// What a rebuild was like.
struct Built {
    promoted: Promoted,
    reads: u64,
    cost: Cost,
    seconds: f64,
}

/// Both stores, one after the other, over the same topic.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let events = if plan.quick { EVENTS_QUICK } else { EVENTS };
    let database = TestDatabase::create(&command::MIGRATOR).await;
    fill(&database, events).await;
    let topic = new_topic("bench-rebuild").await.name;
    let command = roles::command(database.url().expose(), &topic, true);
    published(&topic, events).await;
    let folder = tempfile::tempdir().unwrap();
    let postgres = TestDatabase::create(&query::store::postgres::MIGRATOR).await;
    let sqlite = format!("sqlite://{}", folder.path().join("orders.db").display());
    let mut rows = Vec::new();
    for (name, url) in [("SQLite", sqlite.as_str()), ("PostgreSQL", postgres.url().expose())] {
        let query = roles::query(url, &topic);
        let built = under_load(url, &topic, &command, &query).await;
        let rate = built.promoted.read.0 as f64 / built.promoted.read.1.as_secs_f64();
        println!(
            "rebuild, {name}: {} events verified, {:.0} s in all, {} reads meanwhile, all answered, none older than before",
            built.promoted.report.events, built.seconds, built.reads
        );
        let row = Row::new(format!("rebuild, {name}, {events} events, live"), rate, "events/s").cost(&built.cost);
        rows.push(if name == "SQLite" {
            row.at_least(1.0, 100_000.0, "at least 100,000 events/s")
        } else {
            let limit = limit_of_postgres(LIMIT_EVENTS).await;
            row.limit(limit, "new orders, an unnest per table").at_least(0.8, limit, "0.8 of the floor")
        });
    }
    drop(command);
    let digests = [served(&sqlite, &topic).await, served(postgres.url().expose(), &topic).await];
    assert_eq!(digests[0], digests[1], "both stores have the same rows");
    println!("rebuild: the digests of both stores are equal: {:?}", digests[0]["order_history"]);
    rows
}

/// Orders are placed and paid, and one in ten is given up, by many customers; nobody publishes yet.
async fn fill(database: &TestDatabase, events: u64) {
    let (executor, lanes) = append::executor(database);
    let orders = Arc::new(AtomicU64::new(events / 2));
    let callers = (0..append::CALLERS).map(|caller| {
        let (executor, orders) = (executor.clone(), Arc::clone(&orders));
        tokio::spawn(async move {
            let left = |left: u64| left.checked_sub(1);
            while let Ok(n) = orders.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left) {
                let mut placing = append::create(false);
                if let OrderCommand::Create { customer_id, .. } = &mut placing.command {
                    *customer_id = format!("customer-{}", n % CUSTOMERS).parse().unwrap();
                }
                let order_id = placing.order_id.0;
                assert_eq!(executor.execute(placing).await.unwrap().reply.status, 201);
                let mut next = append::payment(order_id);
                if n % 10 == 0 {
                    next.command = OrderCommand::Cancel { reason: format!("reason {}", caller % 7) };
                }
                assert_eq!(executor.execute(next).await.unwrap().reply.status, 200);
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    drop((executor, lanes));
}

/// Waits until the relay has published everything.
async fn published(topic: &str, events: u64) {
    eventually(DEADLINE, "everything is on the topic", || async {
        let ends = end_offsets(&testkit::brokers(), topic, PARTITIONS).await.unwrap();
        let records: i64 = ends.iter().map(|(low, high)| high - low).sum();
        if u64::try_from(records).unwrap() >= events { Ok(()) } else { Err(format!("{records} records")) }
    })
    .await;
}

/// Waits until the service is at the end of the topic.
async fn caught_up(query: &Process) {
    eventually(DEADLINE, "the read model is at the end of the topic", || async {
        let mut client = Client::connect(query.addr).await;
        let answer = client.ask(|request| get(request, "/projection")).await;
        let told: Value = serde_json::from_slice(answer.body).unwrap();
        let partitions = told["partitions"].as_array().unwrap();
        let behind = partitions.iter().any(|partition| partition["lag"] != 0);
        if partitions.is_empty() || behind { Err(told.to_string()) } else { Ok(()) }
    })
    .await;
}

async fn under_load(url: &str, topic: &str, command: &Process, query: &Process) -> Built {
    caught_up(query).await;
    let (over, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writing = tokio::spawn(write(command.addr, Arc::clone(&over)));
    let reading = tokio::spawn(read(query.addr, Arc::clone(&over), Arc::clone(&reads)));
    let (started, meter) = (Instant::now(), Meter::own());
    let promoted = rebuild(url, topic).await;
    let (seconds, cost) = (started.elapsed().as_secs_f64(), meter.read());
    followed(query, promoted.number, &reads).await;
    over.store(true, Ordering::Relaxed);
    // An answer that is not as it should be is a panic there.
    writing.await.unwrap();
    reading.await.unwrap();
    Built { promoted, reads: reads.load(Ordering::Relaxed), cost, seconds }
}

/// Readers go on for a while on the new generation.
async fn followed(query: &Process, number: i64, reads: &AtomicU64) {
    let before = reads.load(Ordering::Relaxed);
    eventually(DEADLINE, "reads after the promotion", || async {
        let more = reads.load(Ordering::Relaxed) - before;
        if more >= 3 * READS_PER_S { Ok(()) } else { Err(format!("{more} reads of generation {number}")) }
    })
    .await;
    caught_up(query).await;
}

/// As `order-query rebuild` does it.
async fn rebuild(url: &str, topic: &str) -> Promoted {
    let brokers = testkit::brokers().0;
    let words = ["order-query", "serve", "--database-url", url, "--kafka-brokers", &brokers, "--topic", topic];
    let Command::Serve(config) = Cli::parse_from(words).command else { panic!("not serve") };
    let (telling, _told) = watch::channel(None);
    let projecting = Projecting {
        kafka: config.kafka,
        default_currency: config.default_currency,
        freshness: Freshness::default(),
        progress: Progress::default(),
        changes_kept: config.streams.changes_kept,
        log: None,
    };
    let generations = Generations::at(&config.database.url).unwrap();
    let rebuild = Rebuild { generations, projecting, source: Source::Topic, builder: Builder::Command, telling };
    let promoted = rebuild.run(&CancellationToken::new()).await.unwrap();
    rebuild.generations.close().await;
    promoted
}

/// Orders are placed at a steady pace.
async fn write(addr: std::net::SocketAddr, over: Arc<AtomicBool>) {
    let mut client = Client::connect(addr).await;
    let mut pace = tokio::time::interval(Duration::from_nanos(1_000_000_000 / WRITES_PER_S));
    while !over.load(Ordering::Relaxed) {
        pace.tick().await;
        assert_eq!(client.ask(|request| post(request, "/orders", "", ORDER)).await.status, 201);
    }
}

/// Lists, details and sums are read at a steady pace. Nothing may fail, be empty, or be older than it was.
async fn read(addr: std::net::SocketAddr, over: Arc<AtomicBool>, reads: Arc<AtomicU64>) {
    let mut client = Client::connect(addr).await;
    let mut pace = tokio::time::interval(Duration::from_nanos(1_000_000_000 / READS_PER_S));
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut counted = 0;
    let mut turn = 0_usize;
    while !over.load(Ordering::Relaxed) {
        pace.tick().await;
        turn += 1;
        let path = match turn % 4 {
            0 => "/orders?limit=50".to_owned(),
            1 => "/customers/customer-1".to_owned(),
            _ => known.keys().nth(turn % KNOWN_MAX).map_or("/orders".to_owned(), |id| format!("/orders/{id}")),
        };
        let answer = client.ask(|request| get(request, &path)).await;
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(answer.body));
        let told: Value = serde_json::from_slice(answer.body).unwrap();
        match turn % 4 {
            1 => {
                let orders = told["orders"].as_u64().unwrap();
                assert!(orders >= counted, "{orders} orders after {counted}");
                counted = orders;
            }
            _ => {
                let orders = told.as_array().cloned().unwrap_or_else(|| vec![told.clone()]);
                assert!(!orders.is_empty(), "{path}");
                for order in orders {
                    let (id, version) = (order["order_id"].as_str().unwrap(), order["version"].as_u64().unwrap());
                    if known.len() >= KNOWN_MAX && !known.contains_key(id) {
                        continue;
                    }
                    let before = known.insert(id.to_owned(), version).unwrap_or_default();
                    assert!(version >= before, "{id} at {version} after {before}");
                }
            }
        }
        reads.fetch_add(1, Ordering::Relaxed);
    }
}

/// The digests of what is served, at the end of the topic.
async fn served(url: &str, topic: &str) -> Digests {
    let query = roles::query(url, topic);
    caught_up(&query).await;
    drop(query);
    let generations = Generations::at(&chassis::config::Secret::new(url)).unwrap();
    let live = generations.live().await.unwrap().number;
    let store = generations.open(live).await.unwrap().store;
    let digests = store.digests().await.unwrap();
    store.close().await;
    generations.close().await;
    digests
}
