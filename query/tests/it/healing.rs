//! What the topic does not tell is fetched from the event log, and applied like anything else.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::{Json, Router, routing};
use chassis::kafka::Brokers;
use chassis::testkit::eventually;
use domain::{OrderEvent, Recorded, schema};
use query::healing::Healer;
use query::log::{LogClient, LogPage};
use query::progress::Progress;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::desk::post;
use crate::world::{Kind, World, get, on_both_stores, order, whole_life};

on_both_stores!(
    holes_are_filled_and_no_checkpoint_moves,
    what_has_not_waited_for_long_is_left_alone,
    orders_that_cannot_be_healed_keep_no_other_from_it,
    an_operator_may_ask_for_it,
    what_the_log_tells_and_what_came_of_it_are_one_transaction,
    an_order_that_cannot_be_read_holds_up_nothing,
    a_log_that_does_not_answer_holds_up_nothing,
);

const SOON: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Asked {
    after: Option<String>,
    limit: usize,
}

type Events = Arc<Vec<Recorded<OrderEvent>>>;

/// Pages of these events, as `order-command` gives them.
async fn page(State(events): State<Events>, Query(Asked { after, limit }): Query<Asked>) -> Json<Value> {
    let name = |event: &Recorded<OrderEvent>| format!("{}:{}", event.order_id, event.version);
    let key = |event: &&Recorded<OrderEvent>| (event.order_id, event.version);
    let after = after.map(|after| {
        let (order_id, version) = after.split_once(':').unwrap();
        (domain::OrderId(order_id.parse().unwrap()), domain::Version(version.parse().unwrap()))
    });
    let page: Vec<_> = events.iter().filter(|event| after.is_none_or(|after| key(event) > after)).take(limit).collect();
    let next = page.last().filter(|_last| page.len() == limit).map(|last| name(last));
    let record = |event: &&Recorded<OrderEvent>| {
        json!({ "order_id": event.order_id, "version": event.version, "message": schema::encode(event).unwrap(),
                "headers": [["ce_actor", "alice"], ["ce_correlationid", "c-1"]] })
    };
    let mut body = json!({ "events": page.iter().map(record).collect::<Vec<_>>() });
    if let Some(next) = next {
        body["next"] = next.into();
    }
    Json(body)
}

/// A log of these events.
async fn log_of(mut events: Vec<Recorded<OrderEvent>>) -> LogClient {
    events.sort_by_key(|event| (event.order_id, event.version));
    let router = Router::new().route("/internal/events", routing::get(page)).with_state(Arc::new(events));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let limits = chassis::http::Limits::default();
    tokio::spawn(async move { chassis::http::serve(listener, router, &limits, CancellationToken::new()).await });
    LogClient::new(&url.parse().unwrap()).unwrap()
}

/// A world whose projector has a healer of no patience.
async fn world_with(kind: Kind, log: LogClient) -> (World, Healer) {
    let World { kind, place, projector, keeper, store, router, admin, next_offset } = World::new(kind).await;
    let (healer, healing) = Healer::new(log, store.clone(), Progress::default());
    let projector = projector.healed_by(healing);
    let world = World { kind, place, projector, keeper, store, router, admin, next_offset };
    (world, healer.patient(Duration::ZERO))
}

fn nowhere() -> LogClient {
    LogClient::new(&"http://127.0.0.1:1".parse().unwrap()).unwrap()
}

async fn heal(world: &mut World, healer: &mut Healer) -> usize {
    healer.look().await;
    let mut healed = 0;
    while world.projector.heal().await.unwrap() {
        healed += 1;
    }
    healed
}

async fn holes_are_filled_and_no_checkpoint_moves(kind: Kind) {
    let (one, two) = (whole_life(1), whole_life(2));
    let (mut world, mut healer) =
        world_with(kind, log_of([whole_life(0), one.clone(), two.clone(), whole_life(3)].concat()).await).await;
    // One misses its second event, the other its first and its third.
    world.happen(&[one[0].clone(), two[1].clone(), one[2].clone(), two[3].clone(), one[3].clone()]).await;
    let checkpoints = world.store.checkpoints().await.unwrap();
    assert_eq!(heal(&mut world, &mut healer).await, 2);
    assert_eq!(world.store.checkpoints().await.unwrap(), checkpoints);
    assert_eq!(world.count("select count(*) from parked").await, 0);
    assert_eq!(world.count("select count(*) from orders where status = 'DELIVERED'").await, 2);
    assert_eq!(world.count("select count(*) from orders").await, 2, "and of nobody else");
    assert_eq!(world.count("select count(*) from changes").await, 8, "each is told, at a place of its own");
    assert_eq!(heal(&mut world, &mut healer).await, 0);

    // What comes after all is known.
    let summary = world.happen(&[one.clone(), two.clone()].concat()).await;
    assert_eq!((summary.applied, summary.duplicates), (0, 8));
    let mut plain = World::new(kind).await;
    plain.happen(&[one, two].concat()).await;
    assert_eq!(world.dump().await, plain.dump().await);
}

async fn what_has_not_waited_for_long_is_left_alone(kind: Kind) {
    let (mut world, healer) = world_with(kind, log_of(whole_life(1)).await).await;
    let mut healer = healer.patient(Duration::from_secs(3600));
    world.happen(&whole_life(1)[1..]).await;
    assert_eq!(heal(&mut world, &mut healer).await, 0);
}

async fn orders_that_cannot_be_healed_keep_no_other_from_it(kind: Kind) {
    let (mut world, mut healer) = world_with(kind, log_of(whole_life(40)).await).await;
    for n in 1..=40 {
        world.happen(&whole_life(n)[1..2]).await;
    }
    let mut healed = 0;
    for _look in 0..3 {
        healed += heal(&mut world, &mut healer).await;
    }
    assert_eq!(healed, 1);
    assert_eq!(world.count("select count(*) from orders where status = 'PAID'").await, 1);
}

/// Lets the projector and a running healer work until a wish is granted.
async fn granted(world: &mut World, location: &str) -> Value {
    let admin = world.admin.clone();
    let projector = tokio::sync::Mutex::new(&mut world.projector);
    eventually(SOON, "the wish is granted", || async {
        let mut projector = projector.lock().await;
        projector.intervene().await.unwrap();
        projector.heal().await.unwrap();
        let told = get(&admin, location, &[]).await.json();
        if told["done_at"].is_string() { Ok(told) } else { Err(told.to_string()) }
    })
    .await
}

async fn an_operator_may_ask_for_it(kind: Kind) {
    let (mut world, healer) = world_with(kind, log_of(whole_life(1)).await).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(healer.patient(Duration::from_secs(3600)).run(shutdown.clone()));
    world.happen(&whole_life(1)[2..]).await;
    let asked = post(&world.admin, &format!("/parked/{}/heal", order(1)), None).await;
    assert_eq!(asked.status, 202, "{asked:?}");
    let told = granted(&mut world, asked.headers["location"].to_str().unwrap()).await;
    let outcome = &told["outcome"];
    assert_eq!((&outcome["looked_at"], &outcome["applied"], &outcome["waiting"]), (&2.into(), &4.into(), &0.into()));
    post(&world.admin, &format!("/parked/{}/heal", order(1)), None).await.assert_problem(404, "unknown-parked-event");
    shutdown.cancel();
    running.await.unwrap().unwrap();

    // A node that knows no log says so.
    let mut world = world.restarted(Brokers("127.0.0.1:1".into()), "orders.events").await;
    world.happen(&whole_life(2)[2..]).await;
    let asked = post(&world.admin, &format!("/parked/{}/heal", order(2)), None).await;
    world.grant_all().await;
    let told = get(&world.admin, asked.headers["location"].to_str().unwrap(), &[]).await.json();
    assert!(told["outcome"]["error"].as_str().unwrap().contains("QUERY_LOG_URL"), "{told}");
}

async fn what_the_log_tells_and_what_came_of_it_are_one_transaction(kind: Kind) {
    let (mut world, healer) = world_with(kind, log_of(whole_life(1)).await).await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(healer.patient(Duration::from_secs(3600)).run(shutdown.clone()));
    world.happen(&whole_life(1)[1..]).await;
    let asked = post(&world.admin, &format!("/parked/{}/heal", order(1)), None).await;
    world
        .tamper(
            "create trigger trap before update on interventions begin select raise(abort, 'disk on fire'); end",
            "create function burn() returns trigger language plpgsql as $$ begin raise 'disk on fire'; end $$; \
             create trigger trap before update on interventions for each row execute function burn()",
        )
        .await;
    assert!(world.projector.intervene().await.unwrap(), "the healer is asked");
    assert!(!world.projector.intervene().await.unwrap(), "once");
    let projector = tokio::sync::Mutex::new(&mut world.projector);
    eventually(SOON, "the healer found something", || async {
        match projector.lock().await.heal().await {
            Err(_trapped) => Ok(()),
            Ok(found) => Err(format!("{found}")),
        }
    })
    .await;
    assert_eq!(world.count("select count(*) from orders").await, 0);
    assert_eq!(world.count("select count(*) from parked").await, 3);
    world.tamper("drop trigger trap", "drop trigger trap on interventions").await;
    let told = granted(&mut world, asked.headers["location"].to_str().unwrap()).await;
    assert_eq!((&told["outcome"]["looked_at"], &told["outcome"]["applied"]), (&1.into(), &4.into()), "{told}");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

async fn an_order_that_cannot_be_read_holds_up_nothing(kind: Kind) {
    let (mut world, mut healer) = world_with(kind, log_of(whole_life(1)).await).await;
    world.happen(&whole_life(1)[1..]).await;
    let spoil = "update parked set cause = 'nonsense' where version = 4";
    world.tamper(spoil, spoil).await;
    assert_eq!(heal(&mut world, &mut healer).await, 1);
    assert_eq!(world.count("select count(*) from parked").await, 3);
    assert_eq!(world.happen(&whole_life(2)).await.applied, 4);
}

async fn a_log_that_does_not_answer_holds_up_nothing(kind: Kind) {
    let (mut world, mut healer) = world_with(kind, nowhere()).await;
    world.happen(&whole_life(1)[1..]).await;
    assert_eq!(heal(&mut world, &mut healer).await, 0);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(healer.patient(Duration::from_secs(3600)).run(shutdown.clone()));
    let asked = post(&world.admin, &format!("/parked/{}/heal", order(1)), None).await;
    let told = granted(&mut world, asked.headers["location"].to_str().unwrap()).await;
    assert!(told["outcome"]["error"].as_str().unwrap().contains("does not answer"), "{told}");
    assert_eq!(world.happen(&whole_life(2)).await.applied, 4);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_whole_log_is_read_page_by_page() {
    let events: Vec<_> = (1..=5).flat_map(whole_life).collect();
    let log = log_of(events.clone()).await;
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let LogPage { records, next } = log.page(after, 3).await.unwrap();
        read.extend(records.into_iter().map(|event| (event.order_id, event.version, event.record)));
        let Some(next) = next else { break };
        after = Some(next);
    }
    assert_eq!(read.len(), 20);
    for (event, (order_id, version, record)) in events.iter().zip(read) {
        assert_eq!((event.order_id, event.version), (order_id, version));
        assert_eq!(record.text(), schema::encode(event).unwrap());
        assert_eq!(record.headers.get("ce_actor"), Some("alice"));
        assert_eq!((record.position.partition, record.position.offset), (-1, -1));
    }
    assert!(log.page(None, 0).await.unwrap().records.is_empty());
}
