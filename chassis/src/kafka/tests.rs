//! Against librdkafka's mock cluster: real sockets, scripted faults, no admin calls.

use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::consumer::{Consumer, Message, record_at};
use super::producer::{Delivered, Outgoing, Producer};
use super::topic::{Asker, end_offsets, partition_of};
use super::{Brokers, Error};

const TOPIC: &str = "shop.events";
const PARTITIONS: i32 = 3;
const SOON: Duration = Duration::from_secs(10);

fn cluster() -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, Brokers) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS, 1).unwrap();
    let brokers = Brokers(cluster.bootstrap_servers());
    (cluster, brokers)
}

fn record<'a>(key: &'a str, payload: &'a str) -> Outgoing<'a> {
    Outgoing { key: key.as_bytes(), payload: payload.as_bytes(), headers: Vec::new(), partition: None }
}

async fn read(consumer: &mut Consumer, count: usize) -> Vec<Message> {
    let mut messages = Vec::new();
    while messages.len() < count {
        let batch = consumer.poll_batch(count - messages.len(), SOON).await.unwrap();
        messages.extend(batch);
    }
    messages
}

fn from_start() -> Vec<(i32, i64)> {
    (0..PARTITIONS).map(|partition| (partition, 0)).collect()
}

#[tokio::test]
async fn a_batch_ends_with_the_message_that_fills_it() {
    let (_cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let payload = "x".repeat(100);
    let records: Vec<_> = (0..50).map(|_n| record("key", &payload)).collect();
    producer.send_batch(TOPIC, &records, SOON).await.unwrap();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    let mut read = 0;
    while read < records.len() {
        // Of 103 bytes each.
        let batch = consumer.poll_sized(50, 300, SOON).await.unwrap();
        assert!(batch.len() <= 3, "{}", batch.len());
        read += batch.len();
    }
}

#[tokio::test]
async fn what_is_sent_is_read_in_order_with_headers() {
    let (_cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let payloads: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let mut records: Vec<_> = payloads.iter().map(|payload| record("one-key", payload)).collect();
    records[0].headers = vec![("event_type", "Opened".into()), ("empty", "".into())];
    let delivered = producer.send_batch(TOPIC, &records, SOON).await.unwrap();
    let partition = partition_of(b"one-key", PARTITIONS);
    let expected: Vec<_> = (0..500).map(|offset| Delivered { partition, offset }).collect();
    assert_eq!(delivered, expected);

    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    let messages = read(&mut consumer, 500).await;
    let read: Vec<_> = messages.iter().map(|m| String::from_utf8(m.payload.clone().unwrap()).unwrap()).collect();
    assert_eq!(read, payloads);
    assert_eq!(messages[0].key.as_deref(), Some(&b"one-key"[..]));
    assert_eq!(messages[0].headers, [("event_type".to_owned(), b"Opened".to_vec()), ("empty".to_owned(), vec![])]);
    assert_eq!(consumer.position(partition), Some(500));
    while !consumer.at_end() {
        assert!(consumer.poll_batch(1, SOON).await.unwrap().is_empty());
    }
    assert_eq!(consumer.watermarks(partition).await.unwrap(), (0, 500));
}

#[tokio::test]
async fn our_partition_is_the_producers_partition() {
    let (_cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("key-{n}")).collect();
    let records: Vec<_> = keys.iter().map(|key| record(key, "x")).collect();
    let delivered = producer.send_batch(TOPIC, &records, SOON).await.unwrap();
    for (key, delivered) in keys.iter().zip(delivered) {
        assert_eq!(delivered.partition, partition_of(key.as_bytes(), PARTITIONS), "{key}");
    }
    let mut chosen = record("key-1", "x");
    chosen.partition = Some((partition_of(b"key-1", PARTITIONS) + 1) % PARTITIONS);
    let delivered = producer.send_batch(TOPIC, std::slice::from_ref(&chosen), SOON).await.unwrap();
    assert_eq!(Some(delivered[0].partition), chosen.partition);
}

#[tokio::test]
async fn a_reader_starts_where_it_is_told_and_waits_no_longer_than_told() {
    let (_cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let mut records = [record("k", "0"), record("k", "1"), record("k", "2")];
    for record in &mut records {
        record.partition = Some(1);
    }
    producer.send_batch(TOPIC, &records, SOON).await.unwrap();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &[(1, 2)], "test").unwrap();
    let messages = read(&mut consumer, 1).await;
    assert_eq!((messages[0].offset, messages[0].payload.as_deref()), (2, Some(&b"2"[..])));
    while !consumer.at_end() {
        consumer.poll_batch(10, SOON).await.unwrap();
    }
    assert!(consumer.poll_batch(10, Duration::from_millis(1)).await.unwrap().is_empty());

    assert_eq!(end_offsets(&brokers, TOPIC, PARTITIONS).await.unwrap(), [(0, 0), (0, 3), (0, 0)]);
    let record = record_at(&brokers, TOPIC, 1, 1).await.unwrap().unwrap();
    assert_eq!(record.payload.as_deref(), Some(&b"1"[..]));
    assert_eq!(record_at(&brokers, TOPIC, 1, 3).await.unwrap(), None);
}

#[tokio::test]
async fn dropping_a_poll_loses_nothing() {
    let (_cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    let payloads: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    let records: Vec<_> = payloads.iter().map(|payload| record("k", payload)).collect();
    producer.send_batch(TOPIC, &records, SOON).await.unwrap();
    let mut offsets = Vec::new();
    while offsets.len() < 200 {
        let polled = tokio::select! {
            polled = consumer.poll_batch(7, SOON) => polled.unwrap(),
            () = tokio::task::yield_now() => continue,
        };
        offsets.extend(polled.iter().map(|message| message.offset));
    }
    assert_eq!(offsets, (0..200).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_out_of_range_names_its_partition() {
    let (_cluster, brokers) = cluster();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &[(0, 0), (2, 17)], "test").unwrap();
    let error = loop {
        match consumer.poll_batch(10, SOON).await {
            Ok(batch) => assert!(batch.is_empty()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::OffsetOutOfRange { partition: 2, position: 17, low: 0, high: 0 }), "{error:?}");
}

#[tokio::test]
async fn after_a_failed_batch_a_producer_sends_nothing_more() {
    let (cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    producer.send_batch(TOPIC, &[record("k", "before")], SOON).await.unwrap();
    cluster.broker_down(1).unwrap();
    let error = producer.send_batch(TOPIC, &[record("k", "lost")], Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error:?}");
    cluster.broker_up(1).unwrap();
    let error = producer.send_batch(TOPIC, &[record("k", "after")], SOON).await.unwrap_err();
    assert!(matches!(error, Error::ProducerFailed), "{error:?}");

    let next = Producer::connect(&brokers, "test").unwrap();
    next.send_batch(TOPIC, &[record("k", "again")], SOON).await.unwrap();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    let payloads: Vec<_> = read(&mut consumer, 2).await.into_iter().map(|m| m.payload.unwrap()).collect();
    assert_eq!(payloads, [b"before".to_vec(), b"again".to_vec()]);
}

#[tokio::test]
async fn a_dropped_send_ends_the_producer() {
    let (cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    cluster.broker_down(1).unwrap();
    let records = [record("k", "x")];
    let send = producer.send_batch(TOPIC, &records, SOON);
    assert!(tokio::time::timeout(Duration::from_millis(50), send).await.is_err());
    let error = producer.send_batch(TOPIC, &[record("k", "y")], SOON).await.unwrap_err();
    assert!(matches!(error, Error::ProducerFailed), "{error:?}");
}

#[tokio::test]
async fn a_transient_refusal_neither_loses_nor_reorders() {
    let (cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    cluster.request_errors(
        RDKafkaApiKey::Produce,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        ],
    );
    let payloads: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let records: Vec<_> = payloads.iter().map(|payload| record("k", payload)).collect();
    producer.send_batch(TOPIC, &records, SOON).await.unwrap();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    let read: Vec<_> =
        read(&mut consumer, 50).await.into_iter().map(|m| String::from_utf8(m.payload.unwrap()).unwrap()).collect();
    assert_eq!(read, payloads);
}

#[tokio::test]
async fn a_record_that_is_too_large_is_named() {
    let (_cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let large = "x".repeat(2_000_000);
    let error = producer.send_batch(TOPIC, &[record("k", "x"), record("k", &large)], SOON).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { index: 1 }), "{error:?}");
}

#[tokio::test]
async fn an_outage_fails_no_poll_and_ends_with_the_first_record() {
    const BACK_WITHIN: Duration = Duration::from_secs(2);
    let (cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    producer.send_batch(TOPIC, &[record("k", "before")], SOON).await.unwrap();
    read(&mut consumer, 1).await;
    cluster.broker_down(1).unwrap();
    let deadline = Instant::now() + SOON;
    while consumer.outage().is_none() {
        assert!(Instant::now() < deadline, "the outage was not noticed");
        assert!(consumer.poll_batch(10, Duration::from_millis(100)).await.unwrap().is_empty());
    }
    let since = consumer.outage().unwrap().since;
    for _ in 0..20 {
        assert!(consumer.poll_batch(10, Duration::from_millis(100)).await.unwrap().is_empty());
        assert_eq!(consumer.outage().unwrap().since, since, "it is one outage");
    }
    assert!(consumer.trouble(Duration::from_millis(1)).is_some());
    cluster.broker_up(1).unwrap();
    let back = Instant::now();
    producer.send_batch(TOPIC, &[record("k", "after")], SOON).await.unwrap();
    let messages = read(&mut consumer, 1).await;
    assert_eq!(messages[0].payload.as_deref(), Some(&b"after"[..]));
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    assert!(consumer.outage().is_none() && consumer.trouble(Duration::ZERO).is_none());
}

#[tokio::test]
async fn a_question_that_began_in_an_outage_is_answered_when_it_ends() {
    let (cluster, brokers) = cluster();
    let asker = Asker::connect(&brokers).unwrap().within(Duration::from_secs(1));
    asker.end_offsets(TOPIC, PARTITIONS).await.unwrap();
    cluster.broker_down(1).unwrap();
    let begun = Instant::now();
    asker.end_offsets(TOPIC, PARTITIONS).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(2), "it has its own deadline: {:?}", begun.elapsed());
    let patient = asker.within(SOON);
    let asking = tokio::spawn(async move { patient.end_offsets(TOPIC, PARTITIONS).await });
    cluster.broker_up(1).unwrap();
    let back = Instant::now();
    asking.await.unwrap().unwrap();
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
}

#[tokio::test]
async fn an_error_of_a_partition_is_told_as_such_and_fails_no_poll() {
    let (cluster, brokers) = cluster();
    let producer = Producer::connect(&brokers, "test").unwrap();
    producer.send_batch(TOPIC, &[record("k", "x")], SOON).await.unwrap();
    cluster.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN; 20]);
    let mut consumer = Consumer::assign(&brokers, TOPIC, &from_start(), "test").unwrap();
    let deadline = Instant::now() + SOON;
    while consumer.unreadable().next().is_none() {
        assert!(Instant::now() < deadline, "the errors were not told");
        assert!(consumer.poll_batch(10, Duration::from_millis(1)).await.unwrap().is_empty());
    }
    assert!(consumer.outage().is_none(), "the broker answers");
    let why = consumer.trouble(Duration::ZERO).unwrap();
    assert!(matches!(why, Error::Unreadable { offset: 0, .. }), "{why:?}");
    assert_eq!(read(&mut consumer, 1).await[0].payload.as_deref(), Some(&b"x"[..]));
    // The other partitions have no record that could show it.
    while consumer.unreadable().next().is_some() {
        assert!(Instant::now() < deadline, "what was read is readable");
        consumer.poll_batch(10, Duration::from_millis(100)).await.unwrap();
    }
    assert!(consumer.trouble(Duration::ZERO).is_none());
}
