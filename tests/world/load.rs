//! Clients who do not give up: every command carries a key, and is sent again until its outcome is certain.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use uuid::Uuid;

use super::World;
use super::client::{Answer, Customer, Order, TWO_AND_ONE};

/// How long a client tries one command.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits before it tries again.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    clients: JoinSet<Vec<Order>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

/// What the clients were told.
#[derive(Debug)]
pub(crate) struct Acknowledged {
    /// Each order that was placed, with the last version that was acknowledged.
    pub(crate) orders: HashMap<Uuid, u32>,
}

impl Load {
    /// So many clients; each places orders, one after the other, and pays, ships, changes or cancels some.
    pub(crate) fn begin(world: &World, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut all = JoinSet::new();
        for client in 0..clients {
            let customer = world.customer(&format!("customer-{client}"));
            all.spawn(work(customer, Arc::clone(&stop), Arc::clone(&acknowledged)));
        }
        Self { clients: all, stop, acknowledged }
    }

    /// How many commands were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more commands were acknowledged.
    pub(crate) async fn goes_on(&self, commands: usize) {
        let goal = self.acknowledged() + commands;
        let what = format!("{commands} more commands are acknowledged");
        chassis::testkit::eventually(PATIENCE, &what, || {
            let now = self.acknowledged();
            std::future::ready(if now >= goal { Ok(()) } else { Err(format!("{now} of {goal}")) })
        })
        .await;
    }

    /// Lets every client finish what it has begun.
    pub(crate) async fn end(mut self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        let mut orders = HashMap::new();
        while let Some(done) = self.clients.join_next().await {
            for order in done.unwrap() {
                let twice = orders.insert(order.id, order.version);
                assert_eq!(twice, None, "two keys were answered with order {}", order.id);
            }
        }
        Acknowledged { orders }
    }
}

async fn work(customer: Customer, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicUsize>) -> Vec<Order> {
    let mut orders = Vec::new();
    let mut turn = 0_usize;
    while !stop.load(Ordering::Relaxed) {
        let told = async |request, status| {
            let answer = insist(request).await.is(status);
            acknowledged.fetch_add(1, Ordering::Relaxed);
            answer.order()
        };
        let mut order = told(customer.asks_for(TWO_AND_ONE), 201).await;
        let reason = json!({ "reason": "changed my mind" });
        let steps: &[(&str, Option<&serde_json::Value>)] = match turn % 5 {
            0 => &[("pay", None)],
            1 => &[("cancel", Some(&reason))],
            2 => &[("pay", None), ("cancel", Some(&reason))],
            3 => &[("pay", None), ("ship", None), ("deliver", None)],
            _ => &[],
        };
        for (verb, body) in steps {
            order = told(customer.asks(order.id, verb, *body), 200).await;
        }
        orders.push(order);
        turn += 1;
    }
    orders
}

/// Sends a command under one key until the answer is its outcome: not a lost one, nor one that says "later".
async fn insist(request: reqwest::RequestBuilder) -> Answer {
    let request = request.header("idempotency-key", Uuid::now_v7().to_string());
    let give_up = Instant::now() + PATIENCE;
    loop {
        let last = match Answer::to(request.try_clone().unwrap()).await {
            Ok(answer) if answer.status < 500 => return answer,
            Ok(answer) => answer.body,
            Err(error) => error.to_string(),
        };
        assert!(Instant::now() < give_up, "no outcome within {} s; last: {last}", PATIENCE.as_secs());
        tokio::time::sleep(PAUSE).await;
    }
}

impl World {
    /// Asserts that nothing that was acknowledged is missing, and that nothing was done twice.
    pub(crate) async fn has_exactly(&self, acknowledged: &Acknowledged) {
        let logged = self.logged().await;
        assert_eq!(logged.len(), acknowledged.orders.len(), "as many orders as were acknowledged");
        for (order, version) in &acknowledged.orders {
            assert_eq!(logged.get(order), Some(version), "order {order}");
        }
    }
}
