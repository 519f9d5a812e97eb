//! A command service in this process: a database of its own, lanes that run, and the router to ask.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use chassis::http::admission::Admission;
use chassis::postgres;
use chassis::testkit::TestDatabase;
use chassis::testkit::contract::Contract;
use chrono::{SubsecRound, Utc};
use command::MIGRATOR;
use command::api::{self, Api, Log, PAGES_HELD_MAX, PAGES_READ_MAX};
use command::catalog::{self, Catalog, Product};
use command::executor::{Executor, Limits, Request as Command, Setup};
use command::idempotency::Key;
use domain::order::{DraftLine, OrderCommand};
use domain::{Currency, Metadata, Money, OrderId, Version};
use http_body_util::BodyExt;
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

/// Held against every answer that any test here gets.
static DOCUMENT: LazyLock<Contract> = LazyLock::new(|| Contract::of(&api::openapi()));

pub(crate) fn usd() -> Currency {
    "USD".parse().unwrap()
}

pub(crate) fn money(minor: i64) -> Money {
    Money::from_minor(minor, usd()).unwrap()
}

/// Small and impatient, so that tests meet the limits.
pub(crate) fn limits() -> Limits {
    Limits {
        lanes: 2,
        queue_commands_max: 1_000,
        batch_commands_max: 64,
        command_deadline: Duration::from_secs(5),
        flush_deadline: Duration::from_secs(5),
        resolve_deadline: Duration::from_secs(5),
    }
}

pub(crate) struct World {
    pub(crate) executor: Executor,
    pub(crate) connect: PgConnectOptions,
    /// Of a superuser, to look behind the scenes and to disturb.
    pub(crate) pool: PgPool,
    pub(crate) committed: Arc<Notify>,
    router: Router,
    _tasks: JoinSet<()>,
    _database: TestDatabase,
}

pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Response {
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text);
        assert_eq!(self.json()["code"], code, "{}", self.text);
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(limits()).await
    }

    pub(crate) async fn with(limits: Limits) -> Self {
        Self::reached_by(limits, async |connect| connect).await
    }

    /// With a way of its own from the service to the database.
    pub(crate) async fn reached_by(
        limits: Limits,
        way: impl AsyncFnOnce(PgConnectOptions) -> PgConnectOptions,
    ) -> Self {
        let database = TestDatabase::create(&MIGRATOR).await;
        let connect = postgres::connect_options(&database.url(), "order-command-test", Some("order_command")).unwrap();
        let connect = way(connect).await;
        let committed = Arc::new(Notify::new());
        let (executor, lanes) = Executor::new(&Setup {
            connect: connect.clone(),
            limits,
            render: api::render,
            committed: Arc::clone(&committed),
            default_currency: usd(),
        });
        let mut running = JoinSet::new();
        for lane in lanes {
            running.spawn(async move { lane.run().await.unwrap() });
        }
        let product = |sku: &str, minor| Product { sku: sku.parse().unwrap(), unit_price: money(minor), name: None };
        let products = [product("prod-1", 1500), product("prod-2", 1250)];
        catalog::seed(&mut database.pool().acquire().await.unwrap(), &products).await.unwrap();
        let pool = |connections| postgres::pool(connect.clone(), connections);
        let (catalog, prices) = Catalog::new(pool(2), pool(1), usd(), Some(money(1000)));
        running.spawn(async move { prices.run().await.unwrap() });
        let router = chassis::http::finish(api::router(Api {
            executor: executor.clone(),
            catalog,
            reader: Some("http://reader.example/shop".parse().unwrap()),
            log: Log::new(pool(PAGES_READ_MAX), PAGES_HELD_MAX),
            commands: Admission::new("commands", 1_000),
            reads: Admission::new("reads", 100),
        }));
        let pool = database.pool();
        Self { executor, connect, pool, committed, router, _tasks: running, _database: database }
    }

    /// Serves the API on a port of this machine, until the test ends.
    pub(crate) async fn listen(&self, limits: chassis::http::Limits) -> SocketAddr {
        listen(self.router.clone(), limits).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response {
        let (method, target) = (request.method().to_string(), request.uri().to_string());
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        if let Err(fault) = DOCUMENT.check(&method, &target, parts.status.as_u16(), &parts.headers, &body) {
            panic!("{fault}");
        }
        Response { status: parts.status, headers: parts.headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Asks, and leaves the body of the answer unread.
    pub(crate) async fn open(&self, path: &str) -> axum::response::Response {
        self.router.clone().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    /// Sends with headers and, unless it is empty, a JSON body.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Response {
        self.ask("POST", path, &[], body).await
    }

    /// Places the blueprint's order and returns its id.
    pub(crate) async fn placed(&self) -> String {
        let response = self.post("/orders", ORDER).await;
        assert_eq!(response.status, StatusCode::CREATED, "{}", response.text);
        response.json()["order_id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn count(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&self.pool).await.unwrap()
    }

    /// The versions of all orders are 1, 2, 3 …, rows agree with events, and each event has one outbox row.
    pub(crate) async fn assert_consistent(&self) {
        let gaps =
            "select count(*) from (select max(version) <> count(*) as gap from events group by order_id) g where gap";
        assert_eq!(self.count(gaps).await, 0, "a gap in a history");
        let rows = "select count(*) from (select order_id, max(version) as version from events group by order_id) e
                    full join orders o using (order_id) where o.version is distinct from e.version";
        assert_eq!(self.count(rows).await, 0, "an aggregate row that is not at its last event");
        let outbox = "select count(*) from events e full join outbox o using (order_id, version)
                      where e.order_id is null or o.order_id is null";
        assert_eq!(self.count(outbox).await, 0, "an outbox that does not match the log");
    }
}

/// Serves a router on a port of this machine, until the test ends.
pub(crate) async fn listen(router: Router, limits: chassis::http::Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { chassis::http::serve(listener, router, &limits, CancellationToken::new()).await });
    address
}

pub(crate) const ORDER: &str =
    r#"{"customer_id":"customer-1","items":[{"sku":"prod-1","quantity":2},{"sku":"prod-2","quantity":1}]}"#;

/// A command for the executor itself.
pub(crate) fn command(order_id: OrderId, command: OrderCommand) -> Command {
    Command {
        order_id,
        command,
        expected: Vec::new(),
        key: None,
        metadata: Metadata::default(),
        occurred_at: Utc::now().trunc_subsecs(6),
    }
}

pub(crate) fn new_order(customer: &str) -> Command {
    let lines = vec![DraftLine { sku: "prod-1".parse().unwrap(), quantity: 1, unit_price: Some(money(1500)) }];
    let at = Utc::now().trunc_subsecs(6);
    command(OrderId(Uuid::now_v7()), OrderCommand::Create { customer_id: customer.parse().unwrap(), lines, at })
}

pub(crate) fn keyed(key: &str, request: Command) -> Command {
    Command { key: Some(Key::new(key.to_owned(), "POST", "/orders", &[], b"{}")), ..request }
}

pub(crate) fn expecting(version: u32, request: Command) -> Command {
    Command { expected: vec![Version(version)], ..request }
}
