//! A query service over a store of its own, of either kind, and a topic that exists in the test alone.

mod dump;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use chassis::config::Secret;
use chassis::http::health::Health;
use chassis::kafka::{Brokers, TopicSpec};
use chassis::metrics::Metrics;
use chassis::testkit::TestDatabase;
use chrono::{DateTime, Utc};
use domain::order::Line;
use domain::order::event::{
    OrderCancelled, OrderCreated, OrderDelivered, OrderItemsChanged, OrderPaid, OrderRefunded, OrderShipped,
};
use domain::{Currency, EventId, Money, OrderEvent, OrderId, Recorded, Version, schema};
use query::admin::Admin;
use query::api::Api;
use query::freshness::Freshness;
use query::intake::{Headers, Position, Record};
use query::progress::Progress;
use query::projector::{Projector, Summary};
use query::reader::TopicReader;
use query::service::{admin_router, router};
use query::store::postgres::{self, Keeper};
use query::store::{Opened, Store, open};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use tempfile::TempDir;
use uuid::Uuid;

use crate::desk::ask;

pub(crate) const PARTITIONS: u128 = 3;

/// Which store a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// Makes two tests of each function: one per store.
macro_rules! on_both_stores {
    ($($test:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::world::Kind::Sqlite).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::world::Kind::Postgres).await;
            })+
        }
    };
}

pub(crate) use on_both_stores;

/// Where the rows are, and a connection of the test's own to them.
pub(crate) enum Place {
    Folder(TempDir, SqlitePool),
    Database(Box<TestDatabase>),
}

impl Place {
    pub(crate) async fn new(kind: Kind) -> Self {
        match kind {
            Kind::Sqlite => {
                let folder = tempfile::tempdir().unwrap();
                let options = SqliteConnectOptions::new().filename(folder.path().join("orders.db"));
                Self::Folder(folder, SqlitePool::connect_lazy_with(options))
            }
            Kind::Postgres => Self::Database(Box::new(TestDatabase::create(&postgres::MIGRATOR).await)),
        }
    }

    pub(crate) fn url(&self) -> Secret {
        match self {
            Self::Folder(folder, _raw) => {
                Secret::new(format!("sqlite://{}", folder.path().join("orders.db").display()))
            }
            Self::Database(database) => database.url(),
        }
    }
}

pub(crate) struct World {
    pub(crate) kind: Kind,
    pub(crate) place: Place,
    pub(crate) projector: Projector,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) store: Store,
    pub(crate) router: Router,
    pub(crate) admin: Router,
    pub(crate) next_offset: i64,
}

/// What the API answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.json()["code"], code, "{self:?}");
    }
}

impl World {
    /// A service that asks nobody: records are handed to its projector.
    pub(crate) async fn new(kind: Kind) -> Self {
        Self::reading(kind, Brokers("127.0.0.1:1".into()), "orders.events").await
    }

    /// A service that reads this topic when its projector steps.
    pub(crate) async fn reading(kind: Kind, brokers: Brokers, topic: &str) -> Self {
        Self::open(kind, Place::new(kind).await, brokers, topic).await
    }

    /// The same rows under a new process that reads this topic.
    pub(crate) async fn restarted(mut self, brokers: Brokers, topic: &str) -> Self {
        self.steps_down().await;
        let Self { kind, place, projector, .. } = self;
        drop(projector);
        Self::open(kind, place, brokers, topic).await
    }

    /// Gives the right to project back, where there is one.
    pub(crate) async fn steps_down(&mut self) {
        self.projector.writer().give_back();
        if let Some(keeper) = &self.keeper {
            keeper.release().await.unwrap();
        }
    }

    async fn open(kind: Kind, place: Place, brokers: Brokers, topic: &str) -> Self {
        let Node { projector, keeper, store, router, admin, .. } = Node::open(&place.url(), brokers, topic).await;
        if let Some(keeper) = &keeper {
            assert!(keeper.step().await.unwrap(), "the lease is free");
        }
        Self { kind, place, projector, keeper, store, router, admin, next_offset: 0 }
    }

    pub(crate) async fn apply(&mut self, records: Vec<Record>) -> Summary {
        self.projector.apply(records).await.unwrap()
    }

    /// Publishes events of the log, in order, and applies them.
    pub(crate) async fn happen(&mut self, events: &[Recorded<OrderEvent>]) -> Summary {
        let records = events.iter().map(|event| self.record(event)).collect();
        self.apply(records).await
    }

    pub(crate) fn record(&mut self, event: &Recorded<OrderEvent>) -> Record {
        self.message(event.order_id, schema::encode(event).unwrap())
    }

    pub(crate) fn message(&mut self, order: OrderId, text: String) -> Record {
        self.next_offset += 1;
        let partition = i32::try_from(order.0.as_u128() % PARTITIONS).unwrap();
        Record {
            position: Position { partition, offset: self.next_offset },
            key: Some(order.to_string().into_bytes()),
            payload: Some(text.into_bytes()),
            headers: Headers(vec![("ce_actor".into(), "alice".into()), ("ce_correlationid".into(), "c-1".into())]),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        get(&self.router, path, headers).await
    }

    pub(crate) async fn count(&self, statement: &'static str) -> i64 {
        match &self.place {
            Place::Folder(_folder, raw) => sqlx::query_scalar(statement).fetch_one(raw).await.unwrap(),
            Place::Database(database) => sqlx::query_scalar(statement).fetch_one(&database.pool()).await.unwrap(),
        }
    }

    /// Does behind the service's back what `sqlite` or `postgres` says.
    pub(crate) async fn tamper(&self, sqlite: &'static str, postgres: &'static str) {
        match &self.place {
            Place::Folder(_folder, raw) => drop(sqlx::raw_sql(sqlite).execute(raw).await.unwrap()),
            Place::Database(database) => drop(sqlx::raw_sql(postgres).execute(&database.pool()).await.unwrap()),
        }
    }

    /// As [`Self::tamper`], of a world in PostgreSQL.
    pub(crate) async fn tamper_with(&self, statements: &str) {
        let Place::Database(database) = &self.place else { panic!("not in PostgreSQL") };
        sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(&database.pool()).await.unwrap();
    }

    /// Every projected row.
    pub(crate) async fn dump(&self) -> Vec<Value> {
        dump::dump(&self.place).await
    }
}

/// One process of the service.
pub(crate) struct Node {
    pub(crate) projector: Projector,
    pub(crate) keeper: Option<Keeper>,
    pub(crate) store: Store,
    pub(crate) freshness: Freshness,
    pub(crate) router: Router,
    pub(crate) admin: Router,
}

impl Node {
    pub(crate) async fn open(url: &Secret, brokers: Brokers, topic: &str) -> Self {
        let Opened { store, mut writer, keeper } = open(url).await.unwrap();
        writer.migrate().await.unwrap();
        // Who asks is not waited with: the projector is driven by hand.
        let admin = admin_router(Admin::new(store.clone(), writer.desk()).waiting(Duration::ZERO));
        let (freshness, progress) = (Freshness::default(), Progress::default());
        let reader = TopicReader::new(brokers, TopicSpec { name: topic.into(), partitions: 3, replication: 1 });
        let projector = Projector::new(writer, reader, usd(), freshness.clone(), progress.clone());
        let api = Api::new(store.clone(), freshness.clone(), progress, usd());
        let router = router(api, &Health::new(), &Metrics::install());
        Self { projector, keeper, store, freshness, router, admin }
    }
}

pub(crate) async fn get(router: &Router, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    ask(router, request.body(Body::empty()).unwrap()).await
}

pub(crate) fn usd() -> Currency {
    "USD".parse().unwrap()
}

pub(crate) fn order(n: u128) -> OrderId {
    OrderId(Uuid::from_u128(n))
}

pub(crate) fn money(text: &str, currency: &str) -> Money {
    Money::parse(text, currency.parse().unwrap()).unwrap()
}

pub(crate) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// Noon of a day in November 2026, so that a day is one number in a test.
pub(crate) fn day(day: u32) -> DateTime<Utc> {
    at(&format!("2026-11-{day:02}T12:00:00Z"))
}

/// A history in the making: gives versions, ids and times.
pub(crate) struct History {
    order: OrderId,
    at: DateTime<Utc>,
    pub(crate) events: Vec<Recorded<OrderEvent>>,
}

impl History {
    pub(crate) fn new(order: OrderId, at: DateTime<Utc>) -> Self {
        Self { order, at, events: Vec::new() }
    }

    pub(crate) fn on(mut self, at: DateTime<Utc>) -> Self {
        self.at = at;
        self
    }

    pub(crate) fn then(mut self, event: OrderEvent) -> Self {
        let version = Version(u32::try_from(self.events.len()).unwrap() + 1);
        let event_id = EventId::derived(self.order, version);
        self.events.push(Recorded { event_id, order_id: self.order, version, occurred_at: self.at, event });
        self
    }

    /// `lines`: SKU, quantity and price.
    pub(crate) fn created(self, customer: &str, currency: &str, lines: &[(&str, u32, &str)]) -> Self {
        let created_at = self.at;
        let (lines, total) = priced(currency, lines);
        let customer_id = customer.parse().unwrap();
        self.then(OrderEvent::OrderCreated(OrderCreated { customer_id, lines, total, created_at }))
    }

    pub(crate) fn changed(self, currency: &str, lines: &[(&str, u32, &str)]) -> Self {
        let (lines, total) = priced(currency, lines);
        self.then(OrderEvent::OrderItemsChanged(OrderItemsChanged { lines, total }))
    }

    pub(crate) fn paid(self, amount: &str, currency: &str) -> Self {
        let payment_reference = Some("pay-1".to_owned());
        self.then(OrderEvent::OrderPaid(OrderPaid { amount: money(amount, currency), payment_reference }))
    }

    pub(crate) fn shipped(self) -> Self {
        let (carrier, tracking_number) = (Some("post".to_owned()), Some("P-1".to_owned()));
        self.then(OrderEvent::OrderShipped(OrderShipped { carrier, tracking_number }))
    }

    pub(crate) fn delivered(self) -> Self {
        self.then(OrderEvent::OrderDelivered(OrderDelivered {}))
    }

    pub(crate) fn cancelled(self, reason: &str) -> Self {
        self.then(OrderEvent::OrderCancelled(OrderCancelled { reason: reason.to_owned() }))
    }

    pub(crate) fn refunded(self, amount: &str, currency: &str) -> Self {
        self.then(OrderEvent::OrderRefunded(OrderRefunded { amount: money(amount, currency) }))
    }
}

fn priced(currency: &str, lines: &[(&str, u32, &str)]) -> (Vec<Line>, Money) {
    let mut total = Money::zero(currency.parse().unwrap());
    let lines = lines
        .iter()
        .map(|(sku, quantity, price)| {
            let price = money(price, currency);
            total = total.checked_add(price.checked_mul(*quantity).unwrap()).unwrap();
            Line { sku: sku.parse().unwrap(), quantity: *quantity, unit_price: Some(price) }
        })
        .collect();
    (lines, total)
}

/// The order of the blueprint: 42.50 USD, created, paid, shipped, delivered.
pub(crate) fn whole_life(n: u128) -> Vec<Recorded<OrderEvent>> {
    History::new(order(n), day(1))
        .created("customer-1", "USD", &[("prod-1", 2, "15.00"), ("prod-2", 1, "12.50")])
        .paid("42.50", "USD")
        .shipped()
        .delivered()
        .events
}
