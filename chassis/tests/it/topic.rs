//! The topic is created once, verified at every start, and refused when it would lose events.

use std::time::Duration;

use chassis::kafka::consumer::{Consumer, record_at};
use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::topic::{self, Unfit, partition_of};
use chassis::kafka::{Error, TopicSpec};
use chassis::testkit;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

const SOON: Duration = Duration::from_secs(20);

fn spec(prefix: &str) -> TopicSpec {
    TopicSpec { name: testkit::topic(prefix), partitions: 3, replication: 1 }
}

#[tokio::test]
async fn what_is_created_is_fit_and_creating_it_twice_is_fine() {
    let (brokers, spec) = (testkit::brokers(), spec("fit"));
    let (one, other) = tokio::join!(topic::ensure(&brokers, &spec), topic::ensure(&brokers, &spec));
    one.and(other).unwrap();
    let verified = topic::verify(&brokers, &spec).await.unwrap();
    assert!(verified.cluster_id.is_some());
    assert_eq!(topic::end_offsets(&brokers, &spec.name, 3).await.unwrap(), [(0, 0); 3]);
}

#[tokio::test]
async fn a_missing_topic_is_told_from_a_wrong_one() {
    let (brokers, spec) = (testkit::brokers(), spec("missing"));
    let unfit = topic::verify(&brokers, &spec).await.unwrap_err();
    assert!(matches!(unfit, Unfit::Missing { .. }), "{unfit:?}");
    let error = topic::end_offsets(&brokers, &spec.name, 3).await.unwrap_err();
    assert!(matches!(error, Error::TopicMissing { .. }), "{error:?}");
    let mut consumer = Consumer::assign(&brokers, &spec.name, &[(0, 0)], "test").unwrap();
    let error = consumer.poll_batch(1, SOON).await.unwrap_err();
    assert!(matches!(error, Error::TopicMissing { .. }), "{error:?}");
}

#[tokio::test]
async fn a_topic_that_would_lose_events_is_refused_by_name_and_value() {
    let (brokers, spec) = (testkit::brokers(), spec("drift"));
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers.0).create().unwrap();
    let wrong = NewTopic::new(&spec.name, 3, TopicReplication::Fixed(1)).set("retention.ms", "1000");
    admin.create_topics([&wrong], &AdminOptions::new()).await.unwrap();
    let Unfit::Drift(drift) = topic::verify(&brokers, &spec).await.unwrap_err() else { panic!("not a drift") };
    assert_eq!((drift.key, drift.found.as_str(), drift.required.as_str()), ("retention.ms", "1000", "-1"));

    let more = TopicSpec { partitions: 4, ..spec };
    let Unfit::Drift(drift) = topic::verify(&brokers, &more).await.unwrap_err() else { panic!("not a drift") };
    assert_eq!((drift.key, drift.found.as_str(), drift.required.as_str()), ("partitions", "3", "4"));
}

#[tokio::test]
async fn a_record_goes_through_a_real_broker() {
    let (brokers, spec) = (testkit::brokers(), spec("round"));
    topic::ensure(&brokers, &spec).await.unwrap();
    let producer = Producer::connect(&brokers, "test").unwrap();
    let headers = vec![("traceparent", "00-1".into())];
    let record = Outgoing { key: b"k", payload: b"{\"a\": 1.50}", headers, partition: None };
    let partition = partition_of(b"k", 3);
    let delivered = producer.send_batch(&spec.name, &[record], SOON).await.unwrap();
    assert_eq!((delivered[0].partition, delivered[0].offset), (partition, 0));

    let mut consumer = Consumer::assign(&brokers, &spec.name, &[(0, 0), (1, 0), (2, 0)], "test").unwrap();
    let mut messages = Vec::new();
    while messages.is_empty() {
        messages = consumer.poll_batch(10, SOON).await.unwrap();
    }
    assert_eq!(messages[0].payload.as_deref(), Some(&b"{\"a\": 1.50}"[..]));
    assert_eq!(messages[0].headers, [("traceparent".to_owned(), b"00-1".to_vec())]);
    let anchor = record_at(&brokers, &spec.name, partition, 0).await.unwrap();
    assert_eq!(anchor.as_ref(), messages.first());

    let mut beyond = Consumer::assign(&brokers, &spec.name, &[(partition, 9)], "test").unwrap();
    let error = beyond.poll_batch(1, SOON).await.unwrap_err();
    assert!(matches!(error, Error::OffsetOutOfRange { position: 9, low: 0, high: 1, .. }), "{error:?}");
}
