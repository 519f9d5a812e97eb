//! Other producers' transactions leave gaps and bounds in a partition. Neither loses a record or keeps a reader waiting.

use std::time::{Duration, Instant};

use chassis::kafka::consumer::{Consumer, last_record, record_at};
use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::topic::{self, Asker};
use chassis::kafka::{Brokers, TopicSpec};
use chassis::testkit;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};

const SOON: Duration = Duration::from_secs(20);
const WAIT: Duration = Duration::from_millis(500);

fn foreign(brokers: &Brokers, id: &str) -> FutureProducer {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers.0)
        .set("transactional.id", format!("{id}-{}", testkit::topic("tx")))
        .create()
        .unwrap();
    producer.init_transactions(SOON).unwrap();
    producer.begin_transaction().unwrap();
    producer
}

async fn send(producer: &FutureProducer, topic: &str, payload: &str) {
    let record = FutureRecord::<(), str>::to(topic).partition(0).payload(payload);
    producer.send(record, SOON).await.map_err(|(error, _record)| error).unwrap();
}

async fn ours(producer: &Producer, topic: &str, payload: &str) {
    let record = Outgoing { key: b"k", payload: payload.as_bytes(), headers: Vec::new(), partition: Some(0) };
    producer.send_batch(topic, &[record], SOON).await.unwrap();
}

/// The coordinator answers before the marker is in the partition.
async fn ends_at(asker: &Asker, topic: &str, end: i64) {
    testkit::eventually(SOON, "the marker is there", || async {
        let ends = asker.end_offsets(topic, 1).await.unwrap();
        if ends == [(0, end)] { Ok(()) } else { Err(format!("{ends:?}")) }
    })
    .await;
}

/// Everything until the consumer says that the partition ends.
async fn to_the_end(consumer: &mut Consumer) -> Vec<String> {
    let (mut read, since) = (Vec::new(), Instant::now());
    loop {
        assert!(since.elapsed() < SOON, "the end never comes: {read:?}");
        let messages = consumer.poll_batch(100, WAIT).await.unwrap();
        if messages.is_empty() && consumer.at_end() {
            return read;
        }
        read.extend(messages.into_iter().map(|message| String::from_utf8(message.payload.unwrap()).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_of_others_end_no_partition_early_and_keep_no_reader() {
    let brokers = testkit::brokers();
    let spec = TopicSpec { name: testkit::topic("transactions"), partitions: 1, replication: 1 };
    topic::ensure(&brokers, &spec).await.unwrap();
    let (topic, producer) = (spec.name.as_str(), Producer::connect(&brokers, "test").unwrap());
    let asker = Asker::connect(&brokers).unwrap();
    ours(&producer, topic, "a").await;

    // Offset 1, and the marker at 2.
    let committed = foreign(&brokers, "committed");
    send(&committed, topic, "committed").await;
    committed.commit_transaction(SOON).unwrap();
    ends_at(&asker, topic, 3).await;
    // Offset 3, and the marker at 4.
    let aborted = foreign(&brokers, "aborted");
    send(&aborted, topic, "aborted").await;
    aborted.abort_transaction(SOON).unwrap();

    ends_at(&asker, topic, 5).await;
    let mut reader = Consumer::assign(&brokers, topic, &[(0, 0)], "test").unwrap();
    assert_eq!(to_the_end(&mut reader).await, ["a", "committed"]);
    assert_eq!(reader.position(0), Some(5), "the position is behind markers and aborted records");
    let last = last_record(&brokers, topic, 0).await.unwrap().unwrap();
    assert_eq!((last.offset, last.payload.as_deref()), (1, Some(&b"committed"[..])));
    assert_eq!(record_at(&brokers, topic, 0, 2).await.unwrap(), None);

    // An open one at 5 hides what follows it from readers, but not that it is there.
    let open = foreign(&brokers, "open");
    send(&open, topic, "open").await;
    ours(&producer, topic, "b").await;
    assert_eq!(asker.end_offsets(topic, 1).await.unwrap(), [(0, 7)], "our record is not lost");
    let readable = Asker::for_readers(&brokers).unwrap();
    assert_eq!(readable.end_offsets(topic, 1).await.unwrap(), [(0, 5)], "and readers reach the open transaction");
    let mut scan = Consumer::scan(&brokers, topic, &[(0, 0)], "test").unwrap();
    let scanned = to_the_end(&mut scan).await;
    assert!(scanned.contains(&"b".to_owned()), "{scanned:?}");
    assert_eq!(scan.position(0), Some(7));
    let mut hindered = Consumer::assign(&brokers, topic, &[(0, 0)], "test").unwrap();
    assert_eq!(to_the_end(&mut hindered).await, ["a", "committed"]);
    assert_eq!(hindered.position(0), Some(5), "what is hidden is not read");

    open.commit_transaction(SOON).unwrap();
    ends_at(&asker, topic, 8).await;
    let mut rest = Vec::new();
    while rest.len() < 2 {
        rest.extend(hindered.poll_batch(10, SOON).await.unwrap().into_iter().map(|message| message.offset));
    }
    assert_eq!(rest, [5, 6]);
    to_the_end(&mut hindered).await;
    assert_eq!(hindered.position(0), Some(8));
}
