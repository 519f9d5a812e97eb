//! Other producers compress as they like: every codec that Kafka has can be read.

use std::time::Duration;

use chassis::kafka::TopicSpec;
use chassis::kafka::consumer::Consumer;
use chassis::kafka::topic;
use chassis::testkit;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};

const SOON: Duration = Duration::from_secs(20);
/// Far more than one that compresses badly needs to be worth it.
const REPEATS: usize = 1_000;

#[tokio::test]
async fn every_codec_can_be_read() {
    let brokers = testkit::brokers();
    let spec = TopicSpec { name: testkit::topic("codecs"), partitions: 1, replication: 1 };
    topic::ensure(&brokers, &spec).await.unwrap();
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers.0)
            .set("compression.type", codec)
            .create()
            .unwrap_or_else(|error| panic!("{codec}: {error}"));
        let payload = codec.repeat(REPEATS);
        let record = FutureRecord::<(), str>::to(&spec.name).partition(0).payload(&payload);
        producer.send(record, SOON).await.map_err(|(error, _record)| error).unwrap();
    }
    let mut consumer = Consumer::assign(&brokers, &spec.name, &[(0, 0)], "test").unwrap();
    let mut read = Vec::new();
    while read.len() < codecs.len() {
        let messages = consumer.poll_batch(10, SOON).await.unwrap();
        assert!(!messages.is_empty(), "{} of {} are read", read.len(), codecs.len());
        read.extend(messages.into_iter().map(|message| String::from_utf8(message.payload.unwrap()).unwrap()));
    }
    assert_eq!(read, codecs.map(|codec| codec.repeat(REPEATS)));
}
