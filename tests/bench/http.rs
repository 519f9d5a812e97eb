//! Commands over HTTP: the whole service against the naive design behind the same server.

use std::sync::{Arc, Mutex};

use chassis::testkit::TestDatabase;
use uuid::Uuid;

use crate::Plan;
use crate::load::{Load, closed_loop, post};
use crate::peers::TUTORIAL_COMMANDS;
use crate::process::{Cost, Process};
use crate::relay::new_topic;
use crate::report::{Row, median};
use crate::roles;

/// How many clients there are.
const CONNECTIONS: usize = 64;
/// What all of them order.
pub(crate) const ORDER: &str =
    r#"{"customer_id":"customer-1","items":[{"sku":"prod-1","quantity":2},{"sku":"prod-2","quantity":1}]}"#;

/// Figures of one design over all rounds.
#[derive(Debug, Default)]
struct Figures {
    rates: Vec<f64>,
    p50s_ms: Vec<f64>,
    p99s_ms: Vec<f64>,
    costs: Vec<Cost>,
}

impl Figures {
    fn add(&mut self, load: &Load, cost: Cost) {
        self.rates.push(load.rate);
        self.p50s_ms.push(load.p50_ms);
        self.p99s_ms.push(load.p99_ms);
        self.costs.push(cost);
    }

    fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    fn p99_ms(&self) -> f64 {
        median(self.p99s_ms.clone())
    }

    fn cost(&self) -> Cost {
        Cost::median(&self.costs)
    }
}

/// New orders at `path`; keeps their ids.
async fn place(process: &Process, plan: Plan, path: &'static str, keyed: bool) -> (Load, Cost) {
    let meter = process.meter();
    let write = move |request: &mut Vec<u8>| {
        if keyed {
            post(request, path, &format!("idempotency-key: {}\r\n", Uuid::now_v7()), ORDER);
        } else {
            post(request, path, "", ORDER);
        }
        true
    };
    let load = closed_loop(process.addr, CONNECTIONS, plan.round, 201, write, |answer| answer.order_id()).await;
    (load, meter.read())
}

/// Pays orders until the time is over or all are paid.
async fn pay(process: &Process, plan: Plan, orders: Vec<String>) -> (Load, Cost) {
    let meter = process.meter();
    let orders = Arc::new(Mutex::new(orders));
    let write = move |request: &mut Vec<u8>| {
        let Some(order) = orders.lock().unwrap().pop() else { return false };
        post(request, &format!("/orders/{order}/pay"), "", "");
        true
    };
    let load = closed_loop(process.addr, CONNECTIONS, plan.round, 200, write, |_answer| None).await;
    (load, meter.read())
}

/// Everything on, without the relay, with keys, on existing orders; the naive design; a route that parses and answers.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let (ours_database, alone_database, naive_database) = (
        TestDatabase::create(&command::MIGRATOR).await,
        TestDatabase::create(&command::MIGRATOR).await,
        TestDatabase::create(&command::MIGRATOR).await,
    );
    let topic = new_topic("bench-http").await.name;
    let ours = roles::command(ours_database.url().expose(), &topic, true);
    let alone = roles::command(alone_database.url().expose(), &topic, false);
    let naive = roles::baseline(naive_database.url().expose());

    let [mut new, mut keyed, mut paid, mut new_alone] = [(); 4].map(|()| Figures::default());
    let [mut new_naive, mut paid_naive, mut parsed] = [(); 3].map(|()| Figures::default());
    for _round in 0..plan.rounds {
        let (load, cost) = place(&ours, plan, "/orders", false).await;
        new.add(&load, cost);
        let (load, cost) = place(&ours, plan, "/orders", true).await;
        keyed.add(&load, cost);
        let (load, cost) = place(&alone, plan, "/orders", false).await;
        new_alone.add(&load, cost);
        let (load, cost) = pay(&alone, plan, load.kept).await;
        paid.add(&load, cost);
        let (load, cost) = place(&naive, plan, "/orders", false).await;
        new_naive.add(&load, cost);
        let (load, cost) = pay(&naive, plan, load.kept).await;
        paid_naive.add(&load, cost);
        let (load, cost) = place(&naive, plan, "/constant", false).await;
        parsed.add(&load, cost);
    }
    let limit = parsed.rate();
    let row = |name, figures: &Figures, naive: &Figures| {
        Row::new(name, figures.rate(), "cmd/s")
            .limit(limit, "a route that parses and answers")
            .naive(naive.rate())
            .cost(&figures.cost())
    };
    let p99 = |name, figures: &Figures| Row::new(name, figures.p99_ms(), "ms").at_most(1.0, 8.0, "at most 8 ms");
    vec![
        row("http, new orders, relay beside", &new, &new_naive).at_least(4.0, new_naive.rate(), "4x naive"),
        p99("http, new orders, relay beside, p99", &new).naive(new_naive.p99_ms()),
        TUTORIAL_COMMANDS.row("http, new orders, relay beside, a peer", new.rate(), "cmd/s", limit),
        row("http, new orders", &new_alone, &new_naive).at_least(4.0, new_naive.rate(), "4x naive"),
        TUTORIAL_COMMANDS.row("http, new orders, a peer", new_alone.rate(), "cmd/s", limit),
        p99("http, new orders, p99", &new_alone).naive(new_naive.p99_ms()),
        row("http, with Idempotency-Key, relay beside", &keyed, &new_naive).at_least(0.8, new.rate(), "0.8 of without"),
        row("http, existing orders", &paid, &paid_naive).at_least(4.0, paid_naive.rate(), "4x naive"),
    ]
}
