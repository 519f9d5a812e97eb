//! One client must not take what all need: lists have a time budget, and each peer a share of waits, reads and streams.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use chassis::http::Limits;
use chassis::http::health::Health;
use chassis::http::peer::Peer;
use chassis::metrics::Metrics;
use chassis::testkit::eventually;
use query::api::Api;
use query::freshness::Freshness;
use query::live::StreamLimits;
use query::progress::Progress;
use query::service::router;
use query::store::answer::{ListFilter, Page};
use query::store::{Error, Store};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::desk::ask;
use crate::world::{Answer, Kind, Place, World, get, on_both_stores, order, usd, whole_life};

on_both_stores!(a_list_that_takes_too_long_names_what_no_index_helps, one_peer_leaves_waits_and_streams_for_others,);

const SOON: Duration = Duration::from_secs(20);

fn serving(store: &Store) -> Router {
    let api = Api::new(store.clone(), Freshness::default(), Progress::default(), usd());
    router(api, &Health::new(), &Metrics::install())
}

async fn a_list_that_takes_too_long_names_what_no_index_helps(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    // A file is never asked without time; a server is asked, and waits.
    let budget = if kind == Kind::Sqlite { Duration::ZERO } else { Duration::from_millis(300) };
    let soon = serving(&world.store.clone().with_list_budget(budget));
    let questions = [
        ("/orders?currency=USD&max_total=7", vec!["currency", "max_total"]),
        ("/orders?customer_id=a&sku=b&status=PAID", vec!["sku", "status"]),
        ("/orders?sku=b&status=PAID", vec!["status"]),
        ("/orders?sort=total&status=PAID&created_from=2026-11-01T00:00:00Z", vec!["status", "created_from"]),
    ];
    // PostgreSQL sees nothing of a table that is being changed as a whole: its deadline passes meanwhile.
    let changing = match &world.place {
        Place::Folder(..) => None,
        Place::Database(database) => {
            let mut changing = database.pool().begin().await.unwrap();
            sqlx::query("lock table orders in access exclusive mode").execute(&mut *changing).await.unwrap();
            Some(changing)
        }
    };
    for (question, names) in questions {
        let answer = get(&soon, question, &[]).await;
        answer.assert_problem(422, "list-too-long");
        let body = answer.json();
        let named: Vec<_> = body["errors"].as_array().unwrap().iter().map(|error| error["pointer"].clone()).collect();
        assert_eq!(named, names, "{question}: {body}");
    }
    drop(changing);
    // A list that an index answers has no such bound, and one that ends in time is answered.
    assert_eq!(get(&soon, "/orders?status=DELIVERED", &[]).await.status, 200);
    assert_eq!(world.get("/orders?currency=USD&max_total=700&count=true").await.json().as_array().unwrap().len(), 1);
}

/// The server would go on with what nobody waits for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_ends_in_the_server_when_its_client_has_left() {
    let world = World::new(Kind::Postgres).await;
    let Place::Database(database) = &world.place else { unreachable!() };
    let pool = database.pool();
    let mut changing = pool.begin().await.unwrap();
    sqlx::query("lock table orders in access exclusive mode").execute(&mut *changing).await.unwrap();
    let filter = ListFilter { currency: Some(usd()), ..ListFilter::default() };
    // Longer than the test: it is not the deadline that ends it.
    let store = world.store.clone().with_list_budget(Duration::from_secs(600));
    let asking = || async {
        let listed: Result<_, Error> = store.list(&filter, &Page::default(), 1).await;
        panic!("{listed:?}");
    };
    let waiting = "select count(*) from pg_stat_activity where application_name = 'order-query' and \
        wait_event_type = 'Lock' and datname = current_database()";
    let seen = |wanted: i64| {
        let pool = pool.clone();
        async move {
            eventually(SOON, "the list is in the server, or out of it", || async {
                let found: i64 = sqlx::query_scalar(waiting).fetch_one(&pool).await.unwrap();
                if found == wanted { Ok(()) } else { Err(format!("{found} lists wait")) }
            })
            .await;
        }
    };
    tokio::select! {
        () = asking() => {}
        () = seen(1) => {}
    }
    seen(0).await;
    drop(changing);
}

async fn ask_as(router: &Router, peer: Peer, path: &str) -> Answer {
    let request = Request::get(path)
        .header("prefer", "wait=10")
        .header("host", "localhost")
        .extension(peer)
        .body(Body::empty())
        .unwrap();
    ask(router, request).await
}

async fn one_peer_leaves_waits_and_streams_for_others(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    let limits = Limits { peer_share_percent: 1, ..Limits::default() };
    let streams = StreamLimits { streams_max: 200, ..StreamLimits::default() };
    let shutdown = CancellationToken::new();
    let api = Api::new(world.store.clone(), Freshness::default(), Progress::default(), usd());
    let router = router(api.streaming(streams, shutdown.clone()).sharing(&limits), &Health::new(), &Metrics::install());
    let [greedy, other] = ["192.0.2.1", "192.0.2.2"].map(|address| Peer::at(address.parse().unwrap()));

    // A hundredth of 1,024 waits.
    let never = format!("/orders?after={}:1", order(77));
    let mut waits = JoinSet::new();
    let full = async {
        loop {
            let (router, never) = (router.clone(), never.clone());
            waits.spawn(async move { ask_as(&router, greedy, &never).await });
            // One after the other: each has to look first, which has a share of its own.
            if let Ok(Some(refused)) = timeout(Duration::from_millis(50), waits.join_next()).await {
                return refused.unwrap();
            }
        }
    };
    let refused = timeout(SOON, full).await.unwrap();
    refused.assert_problem(503, "overloaded");
    assert!(refused.text.contains("10 waits from your address"), "{refused:?}");
    let other_waits = {
        let (router, path) = (router.clone(), format!("/orders/{}?min_version=5", order(1)));
        let request = Request::get(path)
            .header("prefer", "wait=1")
            .header("host", "localhost")
            .extension(other)
            .body(Body::empty())
            .unwrap();
        tokio::spawn(async move { ask(&router, request).await })
    };
    other_waits.await.unwrap().assert_problem(503, "read-model-behind");
    waits.abort_all();

    // Two of 200 streams.
    let open = |peer: Peer| {
        let request =
            Request::get("/orders/stream").header("host", "localhost").extension(peer).body(Body::empty()).unwrap();
        router.clone().oneshot(request)
    };
    let held = [open(greedy).await.unwrap(), open(greedy).await.unwrap()];
    assert!(held.iter().all(|stream| stream.status() == 200));
    assert_eq!(open(greedy).await.unwrap().status(), 503);
    assert_eq!(open(other).await.unwrap().status(), 200);
    shutdown.cancel();
}
