//! What operators ask about generations and have done to them, and readers who watch meanwhile.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chassis::testkit::{TestDatabase, eventually};
use query::store::postgres;
use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::client::Answer;
use super::process::Service;
use super::reads::Reads;
use super::{SOON, World};

/// Which database a read model is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

impl World {
    /// A world whose read model is in a database of this kind; its services are not started.
    pub(crate) async fn prepare_with(kind: Kind) -> (Self, Option<TestDatabase>) {
        let mut world = Self::prepare().await;
        let log = world.command.url();
        world.query.set("QUERY_LOG_URL", &log);
        let database = match kind {
            Kind::Sqlite => None,
            Kind::Postgres => {
                let database = TestDatabase::create(&postgres::MIGRATOR).await;
                world.query.set("QUERY_DATABASE_URL", database.url().expose());
                Some(database)
            }
        };
        (world, database)
    }

    /// The same with both services ready.
    pub(crate) async fn start_with(kind: Kind) -> (Self, Option<TestDatabase>) {
        let (mut world, database) = Self::prepare_with(kind).await;
        world.command.start().await;
        world.query.start().await;
        (world, database)
    }

    /// Another query service over the same topic, with a read model of its own in a file; not started.
    pub(crate) fn another_reader(&self) -> Service {
        let mut other = Service::new(self.query_run("order-query-2", &["serve"]), self.http.clone());
        let file = format!("{}-2", other.variable("QUERY_DATABASE_URL"));
        other.set("QUERY_DATABASE_URL", &file);
        other
    }

    /// What the operators of a reader may ask.
    pub(crate) fn operators(&self, reader: &Service) -> Operators {
        let url = format!("http://{}", reader.variable("QUERY_ADMIN_LISTEN"));
        Operators { url, http: self.http.clone() }
    }

    /// Waits until this reader has every order of the log in its last version.
    pub(crate) async fn is_caught_up(&self, reader: &Service) {
        let reads = Reads::of(reader, self);
        eventually(SOON, "the reader has all orders", || async {
            let (logged, read) = (self.logged().await, reads.orders().await);
            if logged == read { Ok(()) } else { Err(format!("{} of {} orders", read.len(), logged.len())) }
        })
        .await;
    }
}

/// The admin listener of a reader.
#[derive(Debug, Clone)]
pub(crate) struct Operators {
    url: String,
    http: reqwest::Client,
}

impl Operators {
    pub(crate) async fn get(&self, path: &str) -> Value {
        Answer::to(self.http.get(format!("{}{path}", self.url))).await.unwrap().is(200).json()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::to(self.http.post(format!("{}{path}", self.url)).json(body)).await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::to(self.http.delete(format!("{}{path}", self.url))).await.unwrap()
    }

    /// The number of each generation that is complete, and which one is live.
    pub(crate) async fn generations(&self) -> (Vec<i64>, i64) {
        let all = self.get("/generations").await;
        let all = all.as_array().unwrap();
        let number = |generation: &&Value| generation["number"].as_i64().unwrap();
        let complete = all.iter().filter(|generation| generation["state"] == "complete").map(|one| number(&one));
        let live: Vec<i64> = all.iter().filter(|one| one["live"] == true).map(|one| number(&one)).collect();
        assert_eq!(live.len(), 1, "{all:?}");
        (complete.collect(), live[0])
    }

    /// Waits until this generation is live.
    pub(crate) async fn see_live(&self, number: i64) {
        eventually(SOON, &format!("generation {number} is live"), || async {
            let (complete, live) = self.generations().await;
            if live == number { Ok(()) } else { Err(format!("{live} of {complete:?}; {}", self.get("/rebuild").await)) }
        })
        .await;
    }

    /// Waits until a generation is being built and some of it is.
    pub(crate) async fn see_building(&self) -> i64 {
        eventually(SOON, "a generation is being built", || async {
            let told = self.get("/rebuild").await;
            assert!(told["promoted"].is_null() && told["failure"].is_null(), "too early: {told}");
            match told["generation"].as_i64() {
                Some(number) if told["done"].as_i64() > Some(0) => Ok(number),
                _ => Err(told.to_string()),
            }
        })
        .await
    }
}

/// Waits until this reader answers from that generation, to which it moved so many times.
pub(crate) async fn serves(reader: &Service, number: i64, times: usize) {
    eventually(SOON, &format!("generation {number} is served"), || {
        let log = reader.log();
        let moved = log.lines().filter(|line| line.contains("this generation is served now"));
        let found = moved.filter(|line| line.ends_with(&format!("generation={number}"))).count();
        std::future::ready(if found == times { Ok(()) } else { Err(format!("{found} times of {times}")) })
    })
    .await;
}

/// Runs `order-query` with these arguments where the reader is, to a good end. Returns what it printed.
pub(crate) async fn operate(reader: &Service, args: &[&str]) -> String {
    let (code, printed, log) = reader.beside(args[0], args).runs_to_its_end().await;
    assert_eq!(code, Some(0), "{printed}{log}");
    printed
}

/// What the rows that are served add up to, table by table.
pub(crate) async fn digest(reader: &Service) -> Vec<String> {
    operate(reader, &["digest"]).await.lines().map(str::to_owned).collect()
}

/// Somebody who reads all the time, and is never told less than before.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<usize>,
}

impl Watch {
    /// Begins to read. There must be orders, a cancelled one among them.
    pub(crate) fn begin(reads: Reads) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watching = tokio::spawn(watch(reads, Arc::clone(&stop)));
        Self { stop, watching }
    }

    /// Ends, and returns how often everything was read.
    pub(crate) async fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.await.unwrap()
    }
}

async fn watch(reads: Reads, stop: Arc<AtomicBool>) -> usize {
    let mut seen: HashMap<Uuid, u32> = HashMap::new();
    let (mut turns, mut counted, mut cancelled) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        for order in reads.list("/orders?limit=50").await {
            goes_on(&mut seen, &order);
        }
        assert!(!seen.is_empty(), "there are no orders");
        // Not only the newest: the ids come in no order.
        for order in seen.keys().copied().take(5).collect::<Vec<_>>() {
            let path = format!("/orders/{order}?min_version={}", seen[&order]);
            goes_on(&mut seen, &reads.get(&path).await.unwrap().is(200).json());
        }
        let sum = |rows: &[Value], name: &str| rows.iter().map(|row| row[name].as_i64().unwrap()).sum::<i64>();
        let customers = reads.list("/customers?limit=200").await;
        let now = sum(&customers, "orders");
        assert!(now >= counted && now > 0, "customers had {counted} orders, then {now}");
        let days = reads.list("/sales/daily").await;
        assert!(sum(&days, "orders") >= now, "days have less orders than customers had before");
        let cancellations = sum(&reads.list("/cancellations").await, "orders");
        assert!(cancellations >= cancelled && cancellations > 0, "{cancelled} were cancelled, then {cancellations}");
        assert!(!reads.list("/products").await.is_empty());
        (turns, counted, cancelled) = (turns + 1, now, cancellations);
    }
    turns
}

fn goes_on(seen: &mut HashMap<Uuid, u32>, order: &Value) {
    let (id, version) = (order["order_id"].as_str().unwrap().parse().unwrap(), order["version"].as_u64().unwrap());
    let version = u32::try_from(version).unwrap();
    let before = seen.insert(id, version).unwrap_or(version);
    assert!(before <= version, "order {id} was at version {before}, then at {version}");
}
