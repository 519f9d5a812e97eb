//! The OpenAPI documents say what the service does: every answer is documented, and everything that is documented is
//! answered by a running service.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use chassis::http::Limits;
use chassis::http::health::Health;
use chassis::metrics::Metrics;
use chassis::testkit::asking::{Ask, Reply};
use chassis::testkit::contract::Contract;
use chassis::testkit::limits::probe;
use domain::{OrderId, schema};
use query::admin::Admin;
use query::api::Api;
use query::freshness::Freshness;
use query::generation::Revisions;
use query::live::StreamLimits;
use query::progress::Progress;
use query::projector::Projector;
use query::rebuild::works::{Office, Works};
use query::service::{admin_router, router};
use query::store::{Generations, Opened, Store, open};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::desk::{path_of_letter, path_of_parked};
use crate::rebuild::projecting;
use crate::world::{History, Kind, World, day, on_both_stores, order, usd, whole_life};

on_both_stores!(readers_are_answered_as_documented, operators_are_answered_as_documented,);

/// Every table of the read model fails with this error code from now on.
fn failing(code: &str) -> String {
    format!(
        "create function fail() returns boolean language plpgsql stable as $$
         begin raise exception 'as the test wants' using errcode = '{code}'; end $$;
         do $$ declare name text; begin
             for name in select tablename from pg_tables where schemaname = current_schema() loop
                 execute format('alter table %I rename to %I', name, 'x_' || name);
                 execute format('create view %I as select * from %I where fail()', name, 'x_' || name);
             end loop;
         end $$;"
    )
}

struct Served<'c> {
    at: SocketAddr,
    contract: &'c Contract,
}

impl<'c> Served<'c> {
    async fn by(router: Router, limits: Limits, contract: &'c Contract) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move { chassis::http::serve(listener, router, &limits, CancellationToken::new()).await });
        Self { at, contract }
    }

    async fn send(&self, ask: Ask) -> Reply {
        ask.send(self.at, self.contract).await
    }

    async fn get(&self, target: &str) -> Reply {
        self.send(Ask::new("GET", target).header("Prefer", "wait=0")).await
    }
}

fn api(store: &Store, progress: &Progress) -> Api {
    Api::new(store.clone(), Freshness::default(), progress.clone(), usd())
}

fn routed(api: Api) -> Router {
    router(api, &Health::new(), &Metrics::install())
}

fn impatient() -> Limits {
    Limits { body_read_timeout_ms: 300, ..Limits::default() }
}

/// Every list that waits for an order at a version, with a row to show.
const LISTS: [&str; 5] = ["/orders?", "/customers?", "/products?", "/sales/daily?", "/cancellations?"];

async fn readers_are_answered_as_documented(kind: Kind) {
    let contract = Contract::of(&query::api::openapi());
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    world.happen(&whole_life(2)[..2]).await;
    for (n, on, reason) in [(3, 5, "late"), (4, 6, "dear")] {
        let given_up = History::new(order(n), day(on)).created("customer-2", "EUR", &[("prod-9", 1, "1.00")]);
        world.happen(&given_up.paid("1.00", "EUR").cancelled(reason).refunded("1.00", "EUR").events).await;
    }
    set_aside(&mut world).await;
    let served = Served::by(routed(api(&world.store, &Progress::default())), impatient(), &contract).await;
    assert!(probe(&contract, served.at, async || order(99).to_string()).await > 100);
    shown(&served).await;
    waited_for(&served).await;

    let failing = Progress::tolerating(Duration::ZERO);
    failing.failed("store-refused", "as the test wants".into());
    let failed = Served::by(routed(api(&world.store, &failing)), impatient(), &contract).await;
    for path in waiting(7) {
        failed.get(&path).await.is(503, "projection-failed");
    }
    let building = Progress::default();
    building.filled_by(serde_json::from_str::<Revisions>("{}").unwrap());
    let building = Served::by(routed(api(&world.store, &building)), impatient(), &contract).await;
    for path in ["/customers", "/customers/customer-1", "/products", "/sales/daily", "/cancellations"] {
        building.get(path).await.is(503, "projection-building");
    }
    let limits = StreamLimits { streams_max: 0, ..StreamLimits::default() };
    let full = api(&world.store, &Progress::default()).admitting(0).streaming(limits, CancellationToken::new());
    everywhere(&Served::by(routed(full), impatient(), &contract).await, 503, "overloaded").await;
    if kind == Kind::Postgres {
        broken(&world, &contract, "40001", 503, "not-ready").await;
        broken(&world, &contract, "P0001", 500, "internal").await;
        // A list that takes longer than it may needs far more rows, or a budget of its own: it has its own test.
        assert_eq!(contract.unseen(), ["list_orders 422 list-too-long"].map(str::to_owned).into_iter().collect());
    }
}

/// Discarded and kept: a record that is no event, an event that contradicts another one, one that waits.
async fn set_aside(world: &mut World) {
    for n in [20, 21] {
        let garbage = world.message(order(n), "garbage".into());
        world.apply(vec![garbage]).await;
        world.happen(&whole_life(n)[1..2]).await;
    }
    let letter = path_of_letter(&world.listed("/dead-letters").await[0]);
    world.discard(&letter).await;
    let parked = path_of_parked(&world.listed("/parked").await[0]);
    world.discard(&parked).await;
    let mut other = whole_life(2)[1].clone();
    other.occurred_at = day(20);
    let fork = world.message(order(2), schema::encode(&other).unwrap());
    world.apply(vec![fork]).await;
}

async fn shown(served: &Served<'_>) {
    let order_path = format!("/orders/{}", order(1));
    for path in [
        order_path.clone(),
        format!("{order_path}?as_of_version=2"),
        format!("{order_path}/history"),
        format!("{order_path}/diff?from=0"),
        format!("/orders/{}", order(2)),
        format!("/orders/{}", order(3)),
        "/customers/customer-1".into(),
    ] {
        let first = served.get(&path).await;
        assert_eq!(first.status, 200, "{path}");
        let tag = first.headers["etag"].to_str().unwrap();
        let again = served.send(Ask::new("GET", &path).header("If-None-Match", tag)).await;
        assert_eq!(again.status, 304, "{path}");
    }
    for list in LISTS {
        let page = served.get(&format!("{list}limit=1")).await;
        assert!(page.headers.contains_key("link"), "{list}: {page:?}");
        served.get(&format!("{list}cursor=AAAA")).await.is(400, "invalid-cursor");
    }
    assert_eq!(served.get("/orders?count=true").await.headers["x-total-count"], "4");
    for path in ["/projection", "/dead-letters", "/dead-letters?discarded=true", "/parked", "/parked?discarded=true"] {
        let shown = served.get(path).await;
        assert!(shown.status == 200 && shown.json() != Value::Array(Vec::new()), "{path}: {shown:?}");
    }
    assert_eq!(served.get("/orders/stream").await.status, 200);
    for path in ["", "/history", "/diff?from=1"] {
        served.get(&format!("/orders/{}{path}", order(99))).await.is(404, "unknown-order");
    }
    served.get(&format!("{order_path}?as_of_version=9")).await.is(404, "unknown-version");
    served.get(&format!("{order_path}/diff?from=9")).await.is(404, "unknown-version");
    served.get("/customers/nobody").await.is(404, "unknown-customer");
}

/// What waits for the order `n` at a version that it does not have.
fn waiting(n: u128) -> Vec<String> {
    let lists = LISTS.iter().map(|list| format!("{list}after={}:9", order(n)));
    let orders = ["?", "/history?"].map(|page| format!("/orders/{}{page}min_version=9", order(n)));
    lists.chain(orders).chain([format!("/customers/customer-1?after={}:9", order(n))]).collect()
}

async fn waited_for(served: &Served<'_>) {
    for path in waiting(7) {
        served.get(&path).await.is(503, "read-model-behind");
    }
    for path in waiting(2) {
        served.get(&path).await.is(409, "projection-stopped");
    }
}

/// Asks every route whose answer does not depend on what is asked for.
async fn everywhere(served: &Served<'_>, status: u16, code: &str) {
    for operation in served.contract.operations() {
        let target = format!("{}?{}", operation.sound_path(), operation.required_query(""));
        let ask = Ask::new(&operation.method, target.trim_end_matches(['?', '&']));
        let ask = if operation.body.is_some() { ask.json(r#"{"reason":"a test"}"#) } else { ask };
        // A rebuild takes no reason, and all of its members are optional.
        let ask = if operation.id == "start_rebuild" { Ask::new("POST", "/rebuild").json("{}") } else { ask };
        served.send(ask).await.is(status, code);
    }
}

/// Readers over a store in which everything fails with an error code of PostgreSQL.
async fn broken(world: &World, contract: &Contract, code: &str, status: u16, problem: &str) {
    let other = World::new(world.kind).await;
    let opened = open(&other.place.url()).await.unwrap();
    other.tamper_with(&failing(code)).await;
    let served = Served::by(routed(api(&opened.store, &Progress::default())), impatient(), contract).await;
    everywhere(&served, status, problem).await;
}

async fn operators_are_answered_as_documented(kind: Kind) {
    let contract = Contract::of(&query::admin::openapi());
    let world = World::new(kind).await;
    let Opened { store, writer, .. } = open(&world.place.url()).await.unwrap();
    let desk = writer.desk();
    let admin = || Admin::new(store.clone(), desk.clone());
    let without_works = Served::by(admin_router(admin().waiting(Duration::ZERO)), impatient(), &contract).await;
    assert!(probe(&contract, without_works.at, async || order(99).to_string()).await > 50);
    for (method, path) in [("GET", "/generations"), ("GET", "/rebuild"), ("DELETE", "/rebuild"), ("POST", "/rollback")]
    {
        without_works.send(Ask::new(method, path)).await.is(503, "not-ready");
    }
    without_works.send(Ask::new("POST", "/rebuild").json("{}")).await.is(503, "not-ready");
    let full = Served::by(admin_router(admin().admitting(0)), impatient(), &contract).await;
    everywhere(&full, 503, "overloaded").await;
    rebuilt(&world, &contract, admin()).await;
    let patient = Served::by(admin_router(admin().waiting(Duration::from_secs(20))), impatient(), &contract).await;
    intervened(world, &patient, &without_works).await;
    if kind == Kind::Postgres {
        for (code, status, problem) in [("40001", 503, "not-ready"), ("P0001", 500, "internal")] {
            let other = World::new(kind).await;
            let Opened { store, writer, .. } = open(&other.place.url()).await.unwrap();
            let (_works, office) = works(&other);
            let admin = Admin::new(store, writer.desk()).rebuilding(office);
            other.tamper_with(&failing(code)).await;
            let served = Served::by(admin_router(admin), impatient(), &contract).await;
            for operation in
                contract.operations().iter().filter(|operation| !ASKS_NO_DATABASE.contains(&operation.id.as_str()))
            {
                let ask = Ask::new(&operation.method, operation.sound_path());
                let ask = if operation.body.is_some() { ask.json(r#"{"reason":"a test"}"#) } else { ask };
                served.send(ask).await.is(status, problem);
            }
        }
        assert_eq!(contract.unseen(), UNPROVOKED.map(str::to_owned).into_iter().collect());
    }
}

/// These only tell the works.
const ASKS_NO_DATABASE: [&str; 2] = ["start_rebuild", "stop_rebuild"];

/// What is documented and cannot be provoked from outside: only a bug of the service is answered like this.
const UNPROVOKED: [&str; 2] = ["start_rebuild 500 internal", "stop_rebuild 500 internal"];

/// Works at which nobody works, and where to ask them.
fn works(world: &World) -> (Works, Office) {
    Works::new(Generations::at(&world.place.url()).unwrap(), projecting("127.0.0.1:1", "orders.events"))
}

/// Generations and the works that make them. Nobody works here: a job is begun and goes on.
async fn rebuilt(world: &World, contract: &Contract, admin: Admin) {
    let (_works, office) = works(world);
    let served = Served::by(admin_router(admin.rebuilding(office)), impatient(), contract).await;
    for path in ["/generations", "/rebuild"] {
        assert_eq!(served.send(Ask::new("GET", path)).await.status, 200);
    }
    served.send(Ask::new("POST", "/rollback")).await.is(409, "no-previous-generation");
    let begun = served.send(Ask::new("POST", "/rebuild").json(r#"{"source":"topic"}"#)).await;
    assert_eq!((begun.status, begun.headers["location"].to_str().unwrap()), (202, "/rebuild"));
    let again = served.send(Ask::new("POST", "/rebuild").json("{}")).await;
    again.is(409, "rebuild-running");
    assert!(again.headers.contains_key("retry-after"));
    assert_eq!(served.send(Ask::new("GET", "/rebuild")).await.json()["running"], "rebuild");
    assert_eq!(served.send(Ask::new("DELETE", "/rebuild")).await.status, 202);
    let previous = "update live_generation set previous = 1";
    world.tamper(previous, previous).await;
    served.send(Ask::new("POST", "/rollback")).await.is(409, "rebuild-running");
    let (_works, office) = works(world);
    let Opened { store, writer, .. } = open(&world.place.url()).await.unwrap();
    let idle = admin_router(Admin::new(store, writer.desk()).rebuilding(office));
    let idle = Served::by(idle, impatient(), contract).await;
    assert_eq!(idle.send(Ask::new("POST", "/rollback")).await.status, 202);
    let none = "update live_generation set previous = null";
    world.tamper(none, none).await;
}

/// Every wish about this letter, this order and this waiting event of it; the last two need a reason.
fn wishes(letter: &str, order_id: OrderId, parked: &str) -> Vec<Ask> {
    let paths = [
        "/dead-letters/retry".to_owned(),
        format!("{letter}/retry"),
        "/parked/retry".to_owned(),
        format!("/parked/{order_id}/retry"),
        format!("/parked/{order_id}/heal"),
    ];
    let plain = paths.into_iter().map(|path| Ask::new("POST", path));
    let reasoned = [letter, parked].map(|path| format!("{path}/discard"));
    let reasoned = reasoned.into_iter().map(|path| Ask::new("POST", path).json(r#"{"reason":"a test wrote it"}"#));
    plain.chain(reasoned).map(|ask| ask.header("X-Actor", "alice")).collect()
}

/// Wishes that are granted at once, and those that are not yet.
async fn intervened(mut world: World, granted: &Served<'_>, not_yet: &Served<'_>) {
    for n in 1..=2 {
        let garbage = world.message(order(n), "garbage".into());
        world.apply(vec![garbage]).await;
        world.happen(&whole_life(n)[1..2]).await;
    }
    let letters: Vec<_> = world.listed("/dead-letters").await.iter().map(path_of_letter).collect();
    let parked: Vec<_> = world.listed("/parked").await.iter().map(path_of_parked).collect();
    for path in [letters[0].clone(), format!("/parked/{}", order(1))] {
        assert_eq!(granted.get(&path).await.status, 200, "{path}");
    }
    for ask in wishes(&letters[0], order(1), &parked[0]) {
        let asked = not_yet.send(ask).await;
        assert_eq!(asked.status, 202, "{asked:?}");
    }
    let stop = CancellationToken::new();
    let granting = tokio::spawn(grant(world.projector, stop.clone()));
    for ask in wishes(&letters[1], order(2), &parked[1]) {
        let asked = granted.send(ask).await;
        assert_eq!(asked.status, 200, "{asked:?}");
    }
    stop.cancel();
    granting.await.unwrap();
    let listed = granted.get("/interventions").await.json();
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(granted.get(&format!("/interventions/{id}")).await.status, 200);
}

/// Grants what is asked for, as a running projector does.
async fn grant(mut projector: Projector, stop: CancellationToken) {
    let mut looks = tokio::time::interval(Duration::from_millis(5));
    while !stop.is_cancelled() {
        projector.intervene().await.unwrap();
        projector.heal().await.unwrap();
        looks.tick().await;
    }
}
