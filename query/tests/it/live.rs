//! `GET /orders/stream`: every change once and in order, on whichever node, or an honest `reset`.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use chassis::http::health::Health;
use chassis::kafka::Brokers;
use chassis::metrics::Metrics;
use chassis::testkit::eventually;
use domain::{OrderEvent, Recorded, schema};
use http_body_util::BodyExt as _;
use query::api::Api;
use query::freshness::Freshness;
use query::intake::Record;
use query::live::StreamLimits;
use query::progress::Progress;
use query::service::router;
use query::store::Store;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::world::{History, Kind, Node, World, day, get, on_both_stores, order, usd, whole_life};

const SOON: Duration = Duration::from_secs(20);
const WHOLE_LIFE: [&str; 4] = ["OrderCreated", "OrderPaid", "OrderShipped", "OrderDelivered"];

on_both_stores!(
    changes_come_in_order_with_the_exact_messages,
    filters_hold_back_what_is_not_wanted,
    a_client_resumes_on_another_node_and_gets_each_change_once,
    an_event_that_waited_is_told_once,
    an_event_that_waited_for_a_newer_program_is_told_once,
    an_id_beyond_the_end_of_the_topic_is_reset,
    an_id_that_tells_another_event_is_reset,
    an_id_older_than_what_is_kept_is_reset,
    a_slow_client_is_cut_and_resumes,
    shutdown_ends_a_stream,
    what_is_no_id_is_refused,
);

/// An event that came.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) event: String,
    pub(crate) id: String,
    data: Value,
    pub(crate) text: String,
}

pub(crate) struct Client {
    body: Body,
    text: String,
    last_id: String,
}

impl Client {
    async fn try_open(router: &Router, query: &str, id: Option<&str>) -> Result<Self, String> {
        let mut request = Request::get(format!("/orders/stream{query}"));
        if let Some(id) = id {
            request = request.header("last-event-id", id);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        if response.status() != 200 {
            return Err(format!("{response:?}"));
        }
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Ok(Self { body: response.into_body(), text: String::new(), last_id: String::new() })
    }

    pub(crate) async fn open(router: &Router, query: &str, id: Option<&str>) -> Self {
        let mut client = Self::try_open(router, query, id).await.unwrap();
        assert_eq!(client.block().await.unwrap(), "retry: 3000");
        if id.is_none() {
            let opening = client.block().await.unwrap();
            assert!(opening.starts_with("id: "), "{opening}");
        }
        client
    }

    /// The next block of lines; none at the end of the stream.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let id = block.lines().find_map(|line| line.strip_prefix("id: "));
                self.last_id = id.map_or(std::mem::take(&mut self.last_id), str::to_owned);
                return Some(block);
            }
            let frame = tokio::time::timeout(SOON, self.body.frame()).await.unwrap()?;
            self.text.push_str(str::from_utf8(&frame.unwrap().into_data().unwrap()).unwrap());
        }
    }

    async fn next(&mut self) -> Option<Told> {
        loop {
            let block = self.block().await?;
            let lines = |name: &str| block.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
            if let [event] = lines("event: ")[..] {
                let text = lines("data: ").join("\n");
                let data = serde_json::from_str(&text).unwrap();
                return Some(Told { event: event.to_owned(), id: self.last_id.clone(), data, text });
            }
        }
    }

    pub(crate) async fn take(&mut self, count: usize) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..count {
            told.push(self.next().await.unwrap());
        }
        told
    }
}

/// `order:version` of each.
fn named(told: &[Told]) -> Vec<String> {
    let tail = |order: &Value| order.as_str().unwrap().trim_start_matches(['0', '-']).to_owned();
    told.iter().map(|told| format!("{}:{}", tail(&told.data["order_id"]), told.data["version"])).collect()
}

fn recorded(world: &mut World, events: &[Recorded<OrderEvent>]) -> Vec<Record> {
    events.iter().map(|event| world.record(event)).collect()
}

/// Another node that tells the same: on the same database, or one that reads the same topic in other batches.
async fn another(world: &World, topic: &[Record]) -> (Router, Option<World>) {
    match world.kind {
        Kind::Postgres => {
            let node = Node::open(&world.place.url(), Brokers("127.0.0.1:1".into()), "orders.events").await;
            (node.router, None)
        }
        Kind::Sqlite => {
            let mut other = World::new(Kind::Sqlite).await;
            // Partition by partition, in batches of three: each partition in its order, and nothing else the same.
            for partition in 0..3 {
                let records: Vec<_> =
                    topic.iter().filter(|record| record.position.partition == partition).cloned().collect();
                for batch in records.chunks(3) {
                    other.apply(batch.to_vec()).await;
                }
            }
            (other.router.clone(), Some(other))
        }
    }
}

async fn changes_come_in_order_with_the_exact_messages(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(9)).await;
    let mut client = Client::open(&world.router, "", None).await;
    world.happen(&whole_life(1)).await;
    world.happen(&whole_life(2)).await;
    let told = client.take(8).await;
    let events: Vec<_> = told.iter().map(|told| told.event.as_str()).collect();
    assert_eq!(events, [WHOLE_LIFE, WHOLE_LIFE].concat());
    assert_eq!(named(&told), ["1:1", "1:2", "1:3", "1:4", "2:1", "2:2", "2:3", "2:4"]);
    for (told, (event, offset)) in told.iter().zip(whole_life(1).iter().chain(&whole_life(2)).zip(5..)) {
        let partition = event.order_id.0.as_u128() % 3;
        assert_eq!(
            (told.data["partition"].as_u64(), told.data["offset"].as_u64()),
            (u64::try_from(partition).ok(), Some(offset))
        );
        let message = schema::encode(event).unwrap();
        assert!(told.text.ends_with(&format!("\"data\":{message}}}")), "{}", told.text);
    }
    assert_eq!(told[1].data["status"], "PAID");
}

async fn filters_hold_back_what_is_not_wanted(kind: Kind) {
    let mut world = World::new(kind).await;
    let order_2 = format!("?order_id={}", order(2));
    let mut clients = Vec::new();
    for query in ["?status=CANCELLED", "?customer_id=b", &order_2, "?event_type=OrderCreated&customer_id=a"] {
        clients.push(Client::open(&world.router, query, None).await);
    }
    for (n, customer) in [(1, "a"), (2, "b"), (3, "a")] {
        let history = History::new(order(n), day(1)).created(customer, "USD", &[("prod-1", 1, "15")]);
        world.happen(&history.cancelled("enough").events).await;
    }
    for (client, wanted) in
        clients.iter_mut().zip([["1:2", "2:2", "3:2"].as_slice(), &["2:1", "2:2"], &["2:1", "2:2"], &["1:1", "3:1"]])
    {
        assert_eq!(named(&client.take(wanted.len()).await), wanted);
    }
}

async fn a_client_resumes_on_another_node_and_gets_each_change_once(kind: Kind) {
    let mut world = World::new(kind).await;
    let lives: Vec<_> = (1..=6).map(whole_life).collect();
    // Interleaved, so that one batch has all partitions in turns.
    let events: Vec<_> = (0..4).flat_map(|version| lives.iter().map(move |life| life[version].clone())).collect();
    let topic = recorded(&mut world, &events);
    let mut client = Client::open(&world.router, "", None).await;
    world.apply(topic[..10].to_vec()).await;
    world.apply(topic[10..].to_vec()).await;
    let everything = client.take(events.len()).await;
    let (other, _other) = another(&world, &topic).await;
    for cut in [0, 1, 7, 12, 23] {
        let mut resumed = Client::open(&other, "", Some(&everything[cut].id)).await;
        let mut seen = named(&everything[..=cut]);
        seen.extend(named(&resumed.take(events.len() - cut - 1).await));
        for life in 1..=6 {
            let of_this: Vec<_> = seen.iter().filter(|name| name.starts_with(&format!("{life}:"))).collect();
            assert_eq!(of_this, [1, 2, 3, 4].map(|version| format!("{life}:{version}")).iter().collect::<Vec<_>>());
        }
        assert_eq!(seen.len(), events.len());
        // Whoever has everything is told its place, and no event.
        if resumed.last_id.is_empty() {
            resumed.block().await.unwrap();
        }
        // Both are at the same place now, and the order of the partitions on the way does not show.
        let places = |id: &str| id.split_once(';').unwrap().0.to_owned();
        assert_eq!(places(&resumed.last_id), places(&everything[events.len() - 1].id));
    }
    let by_query = format!("?last_event_id={}", everything[22].id);
    assert_eq!(named(&Client::open(&other, &by_query, None).await.take(1).await), ["6:4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_behind_waits() {
    let (mut ahead, mut behind) = (World::new(Kind::Sqlite).await, World::new(Kind::Sqlite).await);
    let topic = recorded(&mut ahead, &whole_life(1));
    let mut client = Client::open(&ahead.router, "", None).await;
    ahead.apply(topic[..3].to_vec()).await;
    let id = client.take(3).await[2].id.clone();
    behind.apply(topic[..1].to_vec()).await;
    let mut resumed = Client::open(&behind.router, "", Some(&id)).await;
    behind.apply(topic[1..2].to_vec()).await;
    behind.apply(topic[2..].to_vec()).await;
    assert_eq!(named(&resumed.take(1).await), ["1:4"]);
}

async fn an_event_that_waited_is_told_once(kind: Kind) {
    let mut world = World::new(kind).await;
    let mut client = Client::open(&world.router, "", None).await;
    let life = whole_life(1);
    let late = [&life[..1], &life[2..], &life[1..2]].concat();
    let mut topic = recorded(&mut world, &late);
    for record in &topic {
        world.apply(vec![record.clone()]).await;
    }
    let told = client.take(4).await;
    assert_eq!(named(&told), ["1:1", "1:2", "1:3", "1:4"]);
    let places: Vec<_> = told.iter().map(|told| (told.data["offset"].as_i64(), told.data["n"].as_i64())).collect();
    assert_eq!(places, [(1, 0), (4, 0), (4, 1), (4, 2)].map(|(offset, n)| (Some(offset), Some(n))));
    // From between the events of one record on.
    topic.extend(recorded(&mut world, &whole_life(4)[..1]));
    world.apply(topic[4..].to_vec()).await;
    let (other, _other) = another(&world, &topic).await;
    let mut resumed = Client::open(&other, "", Some(&told[2].id)).await;
    assert_eq!(named(&resumed.take(2).await), ["1:4", "4:1"]);
}

async fn an_event_that_waited_for_a_newer_program_is_told_once(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)[..1]).await;
    world.happen(&whole_life(1)[2..3]).await;
    // As if the program that read them had been too old for the third event, and the second had come meanwhile.
    world
        .tamper("update parked set version = 2, cause = 'newer'", "update parked set version = 2, cause = 'newer'")
        .await;
    let second = schema::encode(&whole_life(1)[1]).unwrap();
    match &world.place {
        crate::world::Place::Folder(_folder, raw) => {
            sqlx::query("update parked set message = ?1").bind(&second).execute(raw).await.map(drop).unwrap();
        }
        crate::world::Place::Database(database) => {
            let pool = database.pool();
            sqlx::query("update parked set message = $1").bind(&second).execute(&pool).await.map(drop).unwrap();
        }
    }
    let mut client = Client::open(&world.router, "", None).await;
    assert_eq!(world.projector.retry_newer().await.unwrap().applied, 1);
    world.happen(&whole_life(4)[..1]).await;
    let told = client.take(2).await;
    assert_eq!(named(&told), ["1:2", "4:1"]);
    let mut resumed = Client::open(&world.router, "", Some(&told[0].id)).await;
    assert_eq!(named(&resumed.take(1).await), ["4:1"]);
}

async fn an_id_that_tells_another_event_is_reset(kind: Kind) {
    let (mut world, mut anew) = (World::new(kind).await, World::new(kind).await);
    let mut client = Client::open(&world.router, "", None).await;
    world.happen(&whole_life(1)).await;
    let id = client.take(4).await[2].id.clone();
    anew.happen(&whole_life(4)).await;
    anew.happen(&whole_life(2)).await;
    let mut resumed = Client::open(&anew.router, "", Some(&id)).await;
    assert_eq!(resumed.take(1).await[0].event, "reset");
    anew.happen(&whole_life(5)[..1]).await;
    assert_eq!(named(&resumed.take(1).await), ["5:1"]);
}

async fn an_id_older_than_what_is_kept_is_reset(kind: Kind) {
    let mut world = World::new(kind).await;
    world.projector = world.projector.keeping(3);
    world.happen(&whole_life(1)).await;
    let id = Client::open(&world.router, "", None).await.last_id;
    world.happen(&whole_life(2)).await;
    world.happen(&whole_life(3)).await;
    assert_eq!(world.count("select count(*) from changes").await, 3);
    let mut resumed = Client::open(&world.router, "", Some(&id)).await;
    assert_eq!(resumed.take(1).await[0].event, "reset");
    // The newest change is there, so whoever has it goes on.
    let mut present = Client::open(&world.router, "", Some(&resumed.last_id)).await;
    world.happen(&whole_life(4)[..1]).await;
    assert_eq!(named(&present.take(1).await), ["4:1"]);
    assert_eq!(named(&resumed.take(1).await), ["4:1"]);
}

pub(crate) fn limited(store: &Store, limits: StreamLimits, shutdown: &CancellationToken) -> Router {
    let progress = Progress::default();
    progress.ends(&[(0, 100), (0, 100), (0, 100)]);
    let api = Api::new(store.clone(), Freshness::default(), progress, usd());
    router(api.streaming(limits, shutdown.clone()), &Health::new(), &Metrics::install())
}

async fn an_id_beyond_the_end_of_the_topic_is_reset(kind: Kind) {
    let mut world = World::new(kind).await;
    world.happen(&whole_life(1)).await;
    let limits = StreamLimits { behind_max: Duration::from_millis(50), ..StreamLimits::default() };
    let router = limited(&world.store, limits, &CancellationToken::new());
    for id in ["1:100.1;", "7:1.1;"] {
        assert_eq!(Client::open(&router, "", Some(id)).await.take(1).await[0].event, "reset");
    }
    // Here the topic may have it, and this node has not: another one may.
    assert_eq!(Client::open(&router, "", Some("1:99.1;")).await.next().await, None);
}

async fn a_slow_client_is_cut_and_resumes(kind: Kind) {
    let mut world = World::new(kind).await;
    let limits = StreamLimits { streams_max: 1, stall_max: Duration::from_millis(50), ..StreamLimits::default() };
    let router = limited(&world.store, limits, &CancellationToken::new());
    // It reads nothing: its buffer fills, and nobody waits for it for long.
    let mut slow = Client::try_open(&router, "", None).await.unwrap();
    for n in 1..=25 {
        world.happen(&whole_life(n)).await;
    }
    get(&router, "/orders/stream", &[]).await.assert_problem(503, "overloaded");
    let opens = |id: Option<String>| {
        let router = router.clone();
        async move {
            eventually(SOON, "there is room for another stream", || async {
                Client::try_open(&router, "", id.as_deref()).await
            })
            .await
        }
    };
    drop(opens(None).await);
    let mut told = Vec::new();
    while let Some(event) = slow.next().await {
        told.push(event);
    }
    assert!(told.len() < 100, "{}", told.len());
    let mut resumed = opens(Some(slow.last_id.clone())).await;
    told.extend(resumed.take(100 - told.len()).await);
    let wanted: Vec<_> = (1..=25).flat_map(|n| (1..=4).map(move |version| format!("{n:x}:{version}"))).collect();
    assert_eq!(named(&told), wanted);
}

async fn shutdown_ends_a_stream(kind: Kind) {
    let world = World::new(kind).await;
    let shutdown = CancellationToken::new();
    let router = limited(&world.store, StreamLimits::default(), &shutdown);
    let mut client = Client::open(&router, "", None).await;
    shutdown.cancel();
    assert_eq!(client.next().await, None);
}

async fn what_is_no_id_is_refused(kind: Kind) {
    let world = World::new(kind).await;
    for path in ["/orders/stream?last_event_id=x", "/orders/stream?status=LOST", "/orders/stream?colour=red"] {
        world.get(path).await.assert_problem(400, "invalid-query");
    }
    world.get_with("/orders/stream", &[("last-event-id", "0:1")]).await.assert_problem(400, "invalid-query");
}
