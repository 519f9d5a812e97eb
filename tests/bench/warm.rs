//! Servers that have been running, as every deployment's have. A broker that was started a moment ago still compiles itself
//! while it works, which takes a quarter of two cores; a PostgreSQL makes the files of its write-ahead log one by one, and
//! every commit waits for each of them.

use std::time::{Duration, Instant};

use chassis::kafka::TopicSpec;
use chassis::kafka::consumer::Consumer;
use chassis::testkit::{self, TestDatabase};
use futures_util::future::join_all;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::events::PARTITIONS;
use crate::relay::{new_topic, producer, send_at_once};
use crate::rows::PAYLOAD;

/// For how long.
const LENGTH: Duration = Duration::from_secs(20);
/// So many at a time send one record after the other, so that many small requests come, as they do beside commands,
const SENDERS: usize = 64;
/// and every so often so many records are enqueued at once, as from a backlog.
const BURST: usize = 20_000;
const BURST_EACH: Duration = Duration::from_secs(2);

/// Fills as many files as the write-ahead log has at its largest, so that PostgreSQL uses them again from here on. To make one, it writes it full of
/// zeroes and flushes it, for 10 to 50 ms.
pub(crate) async fn log_files() {
    let database = TestDatabase::create(&command::MIGRATOR).await;
    let pool = database.pool();
    let files: i64 = sqlx::query_scalar(
        "select pg_size_bytes(current_setting('max_wal_size')) / pg_size_bytes(current_setting('wal_segment_size'))",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    for _file in 0..files {
        // With nothing in it a file is not left for the next one.
        sqlx::raw_sql("select pg_logical_emit_message(false, 'bench', ''); select pg_switch_wal()")
            .execute(&pool)
            .await
            .unwrap();
    }
    sqlx::raw_sql("checkpoint").execute(&pool).await.unwrap();
}

/// Produces and consumes until the broker has compiled what that takes. Nothing of it is measured.
pub(crate) async fn broker() {
    let (producer, topic) = (producer(), new_topic("bench-warm").await);
    let reading = tokio::spawn(read(topic.clone()));
    let until = Instant::now() + LENGTH;
    let senders = (0..SENDERS).map(|sender| {
        let (producer, topic) = (producer.clone(), topic.name.clone());
        async move {
            let key = format!("sender-{sender}");
            while Instant::now() < until {
                producer.send_result(record(&topic, &key)).unwrap().await.unwrap().unwrap();
            }
        }
    });
    tokio::join!(join_all(senders), bursts(&producer, &topic.name, until));
    reading.abort();
    // It reads until then, or something is wrong.
    assert!(reading.await.unwrap_err().is_cancelled());
}

fn record<'r>(topic: &'r str, key: &'r str) -> FutureRecord<'r, str, str> {
    FutureRecord::to(topic).key(key).payload(PAYLOAD)
}

async fn bursts(producer: &FutureProducer, topic: &str, until: Instant) {
    while Instant::now() < until {
        let keys: Vec<String> = (0..BURST).map(|n| n.to_string()).collect();
        send_at_once(producer, keys.iter().map(|key| record(topic, key))).await;
        tokio::time::sleep(BURST_EACH).await;
    }
}

async fn read(topic: TopicSpec) {
    let positions: Vec<(i32, i64)> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    let mut consumer = Consumer::assign(&testkit::brokers(), &topic.name, &positions, "bench-warm").unwrap();
    loop {
        consumer.poll_batch(2_000, Duration::from_millis(200)).await.unwrap();
    }
}
