//! Reading one partition of the topic from its beginning to its end, for those who compare it with the log.

use std::time::Duration;

use chassis::kafka::consumer::{Consumer, Message};
use chassis::kafka::{Brokers, TopicSpec, topic};

use super::Error;

/// The most records that are taken at a time.
const RECORDS_MAX: usize = 2_000;
/// How long to wait for the first of them.
const WAIT: Duration = Duration::from_millis(500);

/// A scan of one partition, up to where it ended when the scan began.
#[derive(Debug)]
pub(crate) struct PartitionScan {
    consumer: Option<Consumer>,
    next: i64,
    end: i64,
}

impl PartitionScan {
    pub(crate) async fn open(brokers: &Brokers, topic: &TopicSpec, partition: i32) -> Result<Self, Error> {
        let ends = topic::end_offsets(brokers, &topic.name, topic.partitions).await?;
        let (start, end) =
            usize::try_from(partition).ok().and_then(|partition| ends.get(partition)).copied().unwrap_or_default();
        let consumer = if start < end {
            Some(Consumer::assign(brokers, &topic.name, &[(partition, start)], "order-command-scan")?)
        } else {
            None
        };
        Ok(Self { consumer, next: start, end })
    }

    /// The next records; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<Message>, Error> {
        let Some(consumer) = &mut self.consumer else { return Ok(Vec::new()) };
        while self.next < self.end {
            let messages = consumer.poll_batch(RECORDS_MAX, WAIT).await?;
            if let Some(last) = messages.last() {
                self.next = last.offset + 1;
                return Ok(messages);
            }
        }
        Ok(Vec::new())
    }
}
