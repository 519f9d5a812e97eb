//! Reads over HTTP, beside a projection that goes on: against constants of the same size behind the same server, and
//! against the queries that one would write first.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chassis::kafka::producer::{Outgoing, Producer};
use chassis::testkit::{self, eventually};
use tokio_util::sync::CancellationToken;

use crate::Plan;
use crate::events::{NewOrder, new_order};
use crate::load::{Client, Load, closed_loop, get};
use crate::peers::TUTORIAL_READS;
use crate::process::{Cost, Process};
use crate::relay::new_topic;
use crate::report::{Row, median};
use crate::roles;

/// How many clients there are.
const CONNECTIONS: usize = 64;
/// So many orders has every customer: a page.
const ORDERS_OF_CUSTOMER: u64 = 60;
/// Events a second beside the reads.
const BESIDE: u64 = 500;

/// Publishes orders as the relay would.
pub(crate) async fn publish(producer: &Producer, topic: &str, orders: &[NewOrder]) {
    let keys: Vec<String> = orders.iter().map(|order| order.order_id.to_string()).collect();
    let records: Vec<Outgoing<'_>> = orders
        .iter()
        .zip(&keys)
        .map(|(order, key)| Outgoing {
            key: key.as_bytes(),
            payload: order.message.as_bytes(),
            headers: vec![("ce_id", order.recorded.event_id.to_string().into())],
            partition: None,
        })
        .collect();
    producer.send_batch(topic, &records, Duration::from_secs(30)).await.unwrap();
}

/// A query service that has read `orders` orders, and the designs that it is compared with over the same file.
struct World {
    topic: String,
    producer: Producer,
    orders: u64,
    query: Process,
    baseline: Process,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new(orders: u64) -> Self {
        let topic = new_topic("bench-read").await.name;
        let producer = Producer::connect(&testkit::brokers(), "bench").unwrap();
        for from in (0..orders).step_by(2_000) {
            let batch = (from..orders.min(from + 2_000)).map(|n| new_order(n, orders, ORDERS_OF_CUSTOMER));
            publish(&producer, &topic, &batch.collect::<Vec<_>>()).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("orders.db").display());
        let query = roles::query(&url, &topic);
        // Partitions are read side by side: the last of many are the last of each.
        let last = (orders.saturating_sub(200)..orders).map(|n| new_order(n, orders, ORDERS_OF_CUSTOMER).order_id);
        let last: Vec<String> = last.map(|order_id| format!("/orders/{order_id}")).collect();
        eventually(Duration::from_secs(300), "all orders are projected", || seen(query.addr, &last)).await;
        let baseline = roles::baseline(&url);
        Self { topic, producer, orders, query, baseline, _folder: folder }
    }

    fn order(&self, n: u64) -> NewOrder {
        new_order(n % self.orders, self.orders, ORDERS_OF_CUSTOMER)
    }
}

async fn seen(addr: SocketAddr, paths: &[String]) -> Result<(), String> {
    let mut client = Client::connect(addr).await;
    for path in paths {
        let status = client.ask(|request| get(request, path)).await.status;
        if status != 200 {
            return Err(format!("{path}: {status}"));
        }
    }
    Ok(())
}

/// Asks for one path after another, from the beginning again at their end.
async fn ask(process: &Process, plan: Plan, expected: u16, requests: Arc<Vec<Vec<u8>>>) -> (Load, Cost) {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let meter = process.meter();
    let write = move |request: &mut Vec<u8>| {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        request.extend_from_slice(&requests[n % requests.len()]);
        true
    };
    let load = closed_loop(process.addr, CONNECTIONS, plan.round, expected, write, |_answer| None).await;
    (load, meter.read())
}

fn gets(paths: impl Iterator<Item = String>) -> Arc<Vec<Vec<u8>>> {
    Arc::new(paths.map(|path| written(&path, "")).collect())
}

fn written(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: b\r\n{headers}\r\n").into_bytes()
}

/// The figures of one kind of read: ours, the same-size constant, what one would write first.
#[derive(Debug, Default)]
struct Figures {
    rates: [Vec<f64>; 3],
    costs: Vec<Cost>,
}

impl Figures {
    fn add(&mut self, at: usize, (load, cost): (Load, Cost)) {
        self.rates[at].push(load.rate);
        if at == 0 {
            self.costs.push(cost);
        }
    }

    fn row(&self, path: &'static str, limit_name: &'static str) -> (Row, [f64; 3]) {
        let figures = self.rates.clone().map(median);
        let [ours, limit, naive] = figures;
        let cost = Cost::median(&self.costs);
        (Row::new(path, ours, "req/s").limit(limit, limit_name).naive(naive).cost(&cost), figures)
    }
}

/// Publishes orders at a steady pace until it is told to end.
async fn beside(producer: &Producer, topic: &str, from: u64, ended: CancellationToken) {
    const PACES_PER_S: u64 = 50;
    let mut pace = tokio::time::interval(Duration::from_millis(1_000 / PACES_PER_S));
    let mut n = from;
    while ended.run_until_cancelled(pace.tick()).await.is_some() {
        let orders: Vec<NewOrder> = (0..BESIDE / PACES_PER_S).map(|more| new_order(n + more, from, 60)).collect();
        publish(producer, topic, &orders).await;
        n += BESIDE / PACES_PER_S;
    }
}

async fn size(addr: SocketAddr, path: &str) -> usize {
    Client::connect(addr).await.ask(|request| get(request, path)).await.body.len()
}

/// One order; not modified; a list that all ask for beside a projection; lists that nobody asked for before.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let world = World::new(if plan.quick { 30_000 } else { 300_000 }).await;
    let customers = world.orders / ORDERS_OF_CUSTOMER;
    let ids: Vec<String> = (0..20_000).map(|n| world.order(n * 7_919).order_id.to_string()).collect();
    let one = gets(ids.iter().map(|id| format!("/orders/{id}")));
    let known: Vec<Vec<u8>> =
        ids.iter().map(|id| written(&format!("/orders/{id}"), "if-none-match: W/\"1\"\r\n")).collect();
    let known = Arc::new(known);
    let scattered = |n: u64| n * 7_919 % customers;
    let different = gets((0..200_000).map(|n| {
        // The bound lies before all orders: the same rows, and a query that nobody has asked before.
        format!("/orders?customer_id=customer-{}&created_from=2020-01-01T00:00:00.{n:06}Z", scattered(n))
    }));
    let read = gets((0..customers).map(|n| format!("/lists/customer-{}", scattered(n))));
    let same = gets(std::iter::once("/orders".to_owned()));
    let constant = async |path: &str| {
        let bytes = size(world.query.addr, path).await;
        gets(std::iter::once(format!("/constant/{bytes}")))
    };
    let constant_one = constant(&format!("/orders/{}", ids[0])).await;
    let constant_list = constant("/orders").await;

    let [mut order, mut unchanged, mut hot, mut lists] = [(); 4].map(|()| Figures::default());
    let mut from = world.orders;
    for _round in 0..plan.rounds {
        let constants = ask(&world.baseline, plan, 200, Arc::clone(&constant_one)).await;
        unchanged.rates[1].push(constants.0.rate);
        order.add(1, constants);
        order.add(0, ask(&world.query, plan, 200, Arc::clone(&one)).await);
        order.add(2, ask(&world.baseline, plan, 200, Arc::clone(&one)).await);
        unchanged.add(0, ask(&world.query, plan, 304, Arc::clone(&known)).await);
        lists.add(0, ask(&world.query, plan, 200, Arc::clone(&different)).await);
        lists.add(1, ask(&world.baseline, plan, 200, Arc::clone(&read)).await);
        // Both with the same projection beside.
        let ended = CancellationToken::new();
        let measured = async {
            hot.add(0, ask(&world.query, plan, 200, Arc::clone(&same)).await);
            hot.add(1, ask(&world.baseline, plan, 200, Arc::clone(&constant_list)).await);
            ended.cancel();
        };
        tokio::join!(measured, beside(&world.producer, &world.topic, from, ended.clone()));
        from += 1_000_000;
    }
    let same_size = "a constant of the same size";
    let (one, [ours, limit, naive]) = order.row("read, one order", same_size);
    let (over, _) = order.row("read, one order, over a query each", same_size);
    let (hot, [_, hot_limit, _]) = hot.row("read, list of 50, same query, 500/s beside", same_size);
    let (lists, [_, lists_limit, _]) = lists.row("read, list of 50, every query different", "prepared statement");
    let (unchanged, _) = unchanged.row("read, not modified", same_size);
    vec![
        one.at_least(0.75, limit, "0.75 of a constant"),
        over.at_least(2.0, naive, "2x a query per request"),
        TUTORIAL_READS.row("read, one order, a peer", ours, "req/s", limit),
        hot.at_least(0.5, hot_limit, "0.5 of a constant"),
        lists.at_least(0.9, lists_limit, "0.9 of a prepared statement"),
        unchanged.at_least(0.75, limit, "0.75 of a constant"),
    ]
}
