//! From the answer of a command to the sight of its order, and how long each hop takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chassis::kafka::consumer::Consumer;
use chassis::kafka::topic::end_offsets;
use chassis::testkit::{self, TestDatabase};
use tokio::sync::mpsc;

use crate::Plan;
use crate::events::PARTITIONS;
use crate::http::ORDER;
use crate::load::{Client, get, post};
use crate::process::{Cost, Process};
use crate::relay::new_topic;
use crate::report::{Row, median, percentile_ms};
use crate::roles;

/// Connections on which commands are sent.
const SENDERS: u64 = 16;
/// Connections on which orders are waited for: more than ever wait at the same time, so that none waits for a connection.
const WATCHERS: usize = 64;

/// Of one order: answered, seen on the topic, seen by a reader.
#[derive(Debug, Default, Clone, Copy)]
struct Sight {
    answered: Option<Instant>,
    published: Option<Instant>,
    visible: Option<Instant>,
}

type Sights = Arc<Mutex<HashMap<String, Sight>>>;

/// Sends commands at a steady pace, and hands one in `sampled` on to be watched when it is answered.
async fn send(
    process: &Process,
    per_s: u64,
    length: Duration,
    sampled: u64,
    sights: &Sights,
    watch: mpsc::Sender<String>,
) {
    let started = Instant::now();
    let interval = Duration::from_nanos(1_000_000_000 * SENDERS / per_s);
    let senders = (0..SENDERS).map(|sender| {
        let (addr, sights, watch) = (process.addr, Arc::clone(sights), watch.clone());
        tokio::spawn(async move {
            let mut client = Client::connect(addr).await;
            let offset = interval.mul_f64(sender as f64 / SENDERS as f64);
            let mut pace = tokio::time::interval_at(tokio::time::Instant::now() + offset, interval);
            let mut n = sender;
            while started.elapsed() < length {
                pace.tick().await;
                let answer = client.ask(|request| post(request, "/orders", "", ORDER)).await;
                assert_eq!(answer.status, 201);
                n += 1;
                if n % sampled == 0 {
                    let order_id = answer.order_id().unwrap();
                    sights.lock().unwrap().entry(order_id.clone()).or_default().answered = Some(Instant::now());
                    watch.send(order_id).await.unwrap();
                }
            }
        })
    });
    for sender in senders.collect::<Vec<_>>() {
        sender.await.unwrap();
    }
}

/// Waits for orders to be visible, each by one request that the service answers when it is so.
async fn watch(process: &Process, sights: Sights, orders: mpsc::Receiver<String>) {
    let orders = Arc::new(tokio::sync::Mutex::new(orders));
    let watchers = (0..WATCHERS).map(|_watcher| {
        let (addr, sights, orders) = (process.addr, Arc::clone(&sights), Arc::clone(&orders));
        tokio::spawn(async move {
            let mut client = Client::connect(addr).await;
            loop {
                let next = orders.lock().await.recv().await;
                let Some(order_id) = next else { break };
                let path = format!("/orders/{order_id}?min_version=1");
                let status = client.ask(|request| get(request, &path)).await.status;
                assert_eq!(status, 200, "{path}");
                sights.lock().unwrap().entry(order_id).or_default().visible = Some(Instant::now());
            }
        })
    });
    for watcher in watchers.collect::<Vec<_>>() {
        watcher.await.unwrap();
    }
}

/// A consumer that waits at the end of the topic.
async fn at_the_end(topic: &str) -> Consumer {
    let ends = end_offsets(&testkit::brokers(), topic, PARTITIONS).await.unwrap();
    let positions: Vec<(i32, i64)> = (0..).zip(ends).map(|(partition, (_low, high))| (partition, high)).collect();
    let mut consumer = Consumer::assign(&testkit::brokers(), topic, &positions, "bench-watch").unwrap();
    while !consumer.at_end() {
        consumer.poll_batch(2_000, Duration::from_millis(200)).await.unwrap();
    }
    consumer
}

/// Notes when orders come out of the topic.
async fn consume(mut consumer: Consumer, sights: Sights) {
    loop {
        let messages = consumer.poll_batch(2_000, Duration::from_millis(200)).await.unwrap();
        let now = Instant::now();
        let mut sights = sights.lock().unwrap();
        for key in messages.into_iter().filter_map(|message| message.key) {
            sights.entry(String::from_utf8(key).unwrap()).or_default().published = Some(now);
        }
    }
}

/// Medians of rounds.
#[derive(Debug, Default)]
struct Figures {
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    to_topic_ms: [Vec<f64>; 2],
    from_topic_ms: [Vec<f64>; 2],
    costs: Vec<Cost>,
}

impl Figures {
    fn add(&mut self, sights: &HashMap<String, Sight>, cost: Cost) {
        let (mut whole, mut to_topic, mut from_topic) = (vec![], vec![], vec![]);
        for sight in sights.values() {
            let (Some(answered), Some(visible)) = (sight.answered, sight.visible) else { continue };
            whole.push(visible.saturating_duration_since(answered).as_secs_f64());
            if let Some(published) = sight.published {
                to_topic.push(published.saturating_duration_since(answered).as_secs_f64());
                from_topic.push(visible.saturating_duration_since(published).as_secs_f64());
            }
        }
        assert!(!whole.is_empty());
        self.p50_ms.push(percentile_ms(&mut whole, 50));
        self.p99_ms.push(percentile_ms(&mut whole, 99));
        for (at, percent) in [50, 99].into_iter().enumerate() {
            self.to_topic_ms[at].push(percentile_ms(&mut to_topic, percent));
            self.from_topic_ms[at].push(percentile_ms(&mut from_topic, percent));
        }
        self.costs.push(cost);
    }
}

/// The services, and what is between them.
struct World {
    topic: String,
    command: Process,
    query: Process,
    _folder: tempfile::TempDir,
    _database: TestDatabase,
}

impl World {
    async fn start() -> Self {
        let database = TestDatabase::create(&command::MIGRATOR).await;
        let topic = new_topic("bench-visible").await.name;
        let command = roles::command(database.url().expose(), &topic, true);
        let folder = tempfile::tempdir().unwrap();
        let query = roles::query(&format!("sqlite://{}", folder.path().join("orders.db").display()), &topic);
        Self { topic, command, query, _folder: folder, _database: database }
    }

    /// Commands at a steady pace, one in `sampled` of which is watched.
    async fn watched(&self, per_s: u64, length: Duration, sampled: u64) -> HashMap<String, Sight> {
        let sights = Sights::default();
        let consumer = tokio::spawn(consume(at_the_end(&self.topic).await, Arc::clone(&sights)));
        let (sender, receiver) = mpsc::channel(100_000);
        tokio::join!(
            send(&self.command, per_s, length, sampled, &sights, sender),
            watch(&self.query, Arc::clone(&sights), receiver),
        );
        consumer.abort();
        sights.lock().unwrap().clone()
    }

    fn resident_mib(&self) -> [f64; 2] {
        [self.command.resident_mib(), self.query.resident_mib()]
    }
}

/// 500 commands a second, then 5,000; then 5,000 for long.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let world = World::start().await;
    let [mut calm, mut busy] = [(); 2].map(|()| Figures::default());
    for round in 0..=plan.rounds {
        for (figures, per_s, sampled) in [(&mut calm, 500, 1), (&mut busy, 5_000, 10)] {
            let meter = world.query.meter();
            let sights = world.watched(per_s, plan.round, sampled).await;
            // The first round finds caches empty and connections closed.
            if round > 0 {
                figures.add(&sights, meter.read());
            }
        }
    }
    let cost = Cost::median(&calm.costs);
    let row = |path: &str, ms: Vec<f64>| Row::new(path, median(ms), "ms");
    let mut rows = vec![
        row("visible, 500/s, p50", calm.p50_ms).cost(&cost).at_most(1.0, 5.0, "at most 5 ms"),
        row("visible, 500/s, p99", calm.p99_ms).at_most(1.0, 25.0, "at most 25 ms"),
        row("visible, 5,000/s, p50", busy.p50_ms).cost(&Cost::median(&busy.costs)),
        row("visible, 5,000/s, p99", busy.p99_ms).at_most(1.0, 50.0, "at most 50 ms"),
    ];
    let hops = [("500/s", calm.to_topic_ms, calm.from_topic_ms), ("5,000/s", busy.to_topic_ms, busy.from_topic_ms)];
    for (rate, to_topic, from_topic) in hops {
        for (hop, [p50, p99]) in [("answer to topic", to_topic), ("topic to reader", from_topic)] {
            rows.push(row(&format!("visible, {rate}, {hop}, p50"), p50));
            rows.push(row(&format!("visible, {rate}, {hop}, p99"), p99));
        }
    }
    rows.extend(for_long(&world, plan.long).await);
    rows
}

/// Whether the lag and the memory stay what they are.
async fn for_long(world: &World, length: Duration) -> Vec<Row> {
    let mut figures = Figures::default();
    let mut memory = Vec::new();
    for _fifth in 0..5 {
        let meter = world.query.meter();
        figures.add(&world.watched(5_000, length / 5, 10).await, meter.read());
        memory.push(world.resident_mib());
    }
    let (first, last) = (memory[0], memory[4]);
    let name = |what: &str| format!("visible, 5,000/s for {} s, {what}", length.as_secs());
    let worst = figures.p99_ms.iter().copied().fold(0.0, f64::max);
    let grown = |service, at: usize| {
        Row::new(name(service), last[at], "MiB").limit(first[at], "after a fifth").at_most(1.25, first[at], "flat")
    };
    vec![
        Row::new(name("the worst p99 of five parts"), worst, "ms").at_most(1.0, 50.0, "at most 50 ms"),
        grown("memory of order-command", 0),
        grown("memory of order-query", 1),
    ]
}
