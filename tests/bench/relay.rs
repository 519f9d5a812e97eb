//! Publishing the outbox: the relay against librdkafka from memory, and against awaiting each message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::kafka::{TopicSpec, topic};
use chassis::postgres;
use chassis::testkit::{self, TestDatabase, eventually};
use command::relay::log::{self, LoggedEvent};
use command::relay::{Limits, Relay, Setup, Step};
use futures_util::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::PgPool;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::events::PARTITIONS;
use crate::peers::DEBEZIUM_DRAIN;
use crate::process::{Cost, Meter};
use crate::report::{Row, median};
use crate::rows::INSERT_500;
use crate::{Plan, roles};

/// How many messages the design that awaits each of them sends in a round.
const EACH_AWAITED: usize = 5_000;

/// A topic of its own.
pub(crate) async fn new_topic(prefix: &str) -> TopicSpec {
    let spec = TopicSpec { name: testkit::topic(prefix), partitions: PARTITIONS, replication: 1 };
    topic::ensure(&testkit::brokers(), &spec).await.unwrap();
    spec
}

/// The records that the relay would send: key, payload, and all headers.
struct Record {
    key: String,
    payload: String,
    headers: OwnedHeaders,
}

async fn records(pool: &PgPool, events: usize) -> Vec<Record> {
    let mut connection = pool.acquire().await.unwrap();
    let rows = log::page(&mut connection, (Uuid::nil(), 0), u32::try_from(events).unwrap(), u32::MAX).await.unwrap();
    let record = |event: LoggedEvent| {
        let key = event.order_id().to_string();
        let headers = event.record(&key).headers;
        let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (name, value)| {
            headers.insert(Header { key: name, value: Some(&**value) })
        });
        Record { payload: event.payload, key, headers }
    };
    rows.events.into_iter().map(record).collect()
}

/// A producer with the settings of the relay's, and room for a whole round.
pub(crate) fn producer() -> FutureProducer {
    ClientConfig::new()
        .set("bootstrap.servers", testkit::brokers().0)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", "lz4")
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .unwrap()
}

fn future_record<'r>(topic: &'r str, record: &'r Record) -> FutureRecord<'r, String, String> {
    FutureRecord::to(topic).key(&record.key).payload(&record.payload).headers(record.headers.clone())
}

/// Enqueues all, then awaits all.
pub(crate) async fn send_at_once<'r, K, P>(
    producer: &FutureProducer,
    records: impl Iterator<Item = FutureRecord<'r, K, P>>,
) where
    K: ToBytes + ?Sized + 'r,
    P: ToBytes + ?Sized + 'r,
{
    let acks: Vec<_> =
        records.map(|record| producer.send_result(record).map_err(|(error, _record)| error).unwrap()).collect();
    for ack in try_join_all(acks).await.unwrap() {
        ack.unwrap();
    }
}

/// librdkafka with everything in memory, enqueued at once: what the broker and the library take at most.
async fn round_of_limit(records: &[Record]) -> f64 {
    let (producer, topic) = (producer(), new_topic("bench-limit").await);
    let started = Instant::now();
    send_at_once(&producer, records.iter().map(|record| future_record(&topic.name, record))).await;
    records.len() as f64 / started.elapsed().as_secs_f64()
}

/// Each message awaited before the next is sent.
async fn round_of_naive(records: &[Record]) -> f64 {
    let (producer, topic) = (producer(), new_topic("bench-naive").await);
    let started = Instant::now();
    for record in &records[..EACH_AWAITED] {
        producer.send_result(future_record(&topic.name, record)).unwrap().await.unwrap().unwrap();
    }
    EACH_AWAITED as f64 / started.elapsed().as_secs_f64()
}

/// Events, their orders and outbox rows, that nobody has published.
pub(crate) async fn fill(pool: &PgPool, events: usize) {
    for _ in 0..events / 500 {
        sqlx::query(INSERT_500).bind(crate::rows::PAYLOAD).bind(crate::rows::STATE).execute(pool).await.unwrap();
    }
}

/// A relay of this database to a topic of its own.
pub(crate) async fn relay(database: &TestDatabase) -> Relay {
    Relay::new(Setup {
        connect: postgres::connect_options(&database.url(), "bench", Some("order_command")).unwrap(),
        brokers: testkit::brokers(),
        topic: new_topic("bench-relay").await,
        limits: Limits {
            batch_events_max: 2_000,
            acks_timeout: Duration::from_secs(30),
            poll: Duration::from_millis(20),
            topic_check: Duration::from_secs(2),
            outbox_keep_s: 86_400,
        },
        owner: Uuid::now_v7().to_string(),
        committed: Arc::new(Notify::new()),
        status: command::relay::status::Status::default(),
    })
}

/// Publishes until there is nothing left; how many events, and how many a second after the first batch.
pub(crate) async fn drain(relay: &mut Relay) -> (usize, f64) {
    let begun = Instant::now();
    let first = loop {
        match relay.step().await {
            Ok(Step::Published(events)) => break events,
            // A topic that was made a moment ago has no leader for a while; the service tries again, too.
            other => assert!(begun.elapsed() < Duration::from_secs(20), "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let (started, mut published) = (Instant::now(), first);
    while let Step::Published(events) = relay.step().await.unwrap() {
        published += events;
    }
    (published, (published - first) as f64 / started.elapsed().as_secs_f64())
}

/// The relay on an outbox that is full.
async fn round_of_ours(events: usize) -> (f64, Cost) {
    let database = TestDatabase::create(&command::MIGRATOR).await;
    let pool = database.pool();
    fill(&pool, events).await;
    sqlx::query("vacuum analyze").execute(&pool).await.unwrap();
    let mut relay = relay(&database).await;
    let meter = Meter::own();
    let (published, rate) = drain(&mut relay).await;
    assert_eq!(published, events);
    (rate, meter.read())
}

/// The memory of a relay that is a process of its own, in MiB, after a backlog.
async fn memory_of_ours(database: &TestDatabase, events: usize) -> f64 {
    let topic = new_topic("bench-relay").await;
    let relay = roles::relay(database.url().expose(), &topic.name);
    eventually(Duration::from_secs(120), "everything is on the topic", || async {
        let ends = topic::end_offsets(&testkit::brokers(), &topic.name, PARTITIONS).await.unwrap();
        let records: i64 = ends.iter().map(|(low, high)| high - low).sum();
        if usize::try_from(records).unwrap() >= events { Ok(()) } else { Err(format!("{records} records")) }
    })
    .await;
    relay.meter().read().memory_mib
}

/// A backlog, drained.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let events = if plan.quick { 50_000 } else { 200_000 };
    let database = TestDatabase::create(&command::MIGRATOR).await;
    let pool = database.pool();
    fill(&pool, events).await;
    let records = records(&pool, events).await;
    let (mut ours, mut limit, mut naive, mut costs) = (vec![], vec![], vec![], vec![]);
    for _round in 0..plan.rounds {
        let (rate, cost) = round_of_ours(events).await;
        ours.push(rate);
        costs.push(cost);
        limit.push(round_of_limit(&records).await);
        naive.push(round_of_naive(&records).await);
    }
    let memory_mib = memory_of_ours(&database, events).await;
    let [ours, limit, naive] = [ours, limit, naive].map(median);
    let row = |path| {
        Row::new(path, ours, "ev/s")
            .limit(limit, "librdkafka from memory, all at once")
            .naive(naive)
            .cost(&Cost::median(&costs))
    };
    vec![
        row("relay, backlog").at_least(0.65, limit, "0.65 of the limit"),
        row("relay, backlog, over each awaited").at_least(30.0, naive, "30x each awaited"),
        DEBEZIUM_DRAIN.row("relay, backlog, a peer", ours, "ev/s", limit),
        Row::new("relay, a process, memory", memory_mib, "MiB").at_most(1.0, 100.0, "at most 100 MiB"),
    ]
}
