use chassis::kafka::producer::{Outgoing, Producer};
use chassis::kafka::topic::ensure;
use chassis::testkit;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;

const WHOLE_TEST: Duration = Duration::from_secs(8);

async fn publish(spec: &TopicSpec) {
    let producer = Producer::connect(&testkit::brokers(), "test").unwrap();
    let record = Outgoing { key: b"k", payload: b"{}", headers: Vec::new(), partition: Some(0) };
    producer.send_batch(&spec.name, &[record], WHOLE_TEST).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_do_not_wait_for_a_look_at_the_topic() {
    let spec = TopicSpec { name: testkit::topic("looking"), partitions: 1, replication: 1 };
    ensure(&testkit::brokers(), &spec).await.unwrap();
    publish(&spec).await;
    let mut reader = TopicReader::new(testkit::brokers(), spec.clone());
    let opening = reader.survey(&Checkpoints::default()).await.unwrap();
    reader.open(&opening).unwrap();
    // Whoever looks is connected and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    reader.brokers = Brokers(silent.local_addr().unwrap().to_string());
    reader.next_look = Instant::now();
    let anchor = Anchor { offset: 0, digest: schema::digest(b"{}") };
    let partitions = vec![Checkpoint { partition: 0, last: anchor, proven: anchor }];
    reader.look(&Checkpoints { of: Some(opening.origin), partitions });
    let mut read = 0;
    let reading = async {
        while read < 2 {
            let News::Records(records) = reader.next("USD".parse().unwrap()).await.unwrap() else {
                panic!("nobody answered")
            };
            if read == 0 && !records.is_empty() {
                publish(&spec).await;
            }
            read += records.len();
        }
    };
    timeout(WHOLE_TEST, reading).await.unwrap();
    assert!(reader.look.is_some(), "it goes on");
}
