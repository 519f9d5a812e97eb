//! Reading the topic from given offsets to its end, for those who compare it with the log.

use std::collections::BTreeMap;
use std::time::Duration;

use chassis::kafka::consumer::{Consumer, Message};
use chassis::kafka::{self, Brokers, TopicSpec, topic};
use domain::{OrderId, Version};
use sqlx::types::Uuid;
use tokio::time::Instant;

use super::Error;

/// The most records that are taken at a time.
const RECORDS_MAX: usize = 2_000;
/// How long to wait for the first of them.
const WAIT: Duration = Duration::from_millis(500);
/// How long a scan goes on without any news from the brokers.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the brokers may be away, or a partition unreadable, before the scan is given up.
const TROUBLE_MAX: Duration = Duration::from_secs(5);

/// A scan of some partitions, up to where they ended when the scan began.
///
/// Not every offset has a record: the ends of other writers' transactions take offsets too, and so do records that were
/// aborted. So a partition is read to its end when the consumer says so, not when the last offset was seen.
#[derive(Debug)]
pub(crate) struct Scan {
    consumer: Option<Consumer>,
    /// The end of each partition that is not read to its end yet.
    ends: BTreeMap<i32, i64>,
}

impl Scan {
    /// Partitions with the first offset to read and the offset to stop at.
    pub(crate) fn open(
        brokers: &Brokers,
        topic: &TopicSpec,
        ranges: impl Iterator<Item = (i32, i64, i64)>,
    ) -> Result<Self, Error> {
        let (mut positions, mut ends) = (Vec::new(), BTreeMap::new());
        for (partition, start, end) in ranges.filter(|(_, start, end)| start < end) {
            positions.push((partition, start));
            ends.insert(partition, end);
        }
        let consumer = if positions.is_empty() {
            None
        } else {
            // An open transaction of somebody else hides nothing from it.
            Some(Consumer::scan(brokers, &topic.name, &positions, "order-command-scan")?)
        };
        Ok(Self { consumer, ends })
    }

    /// The whole of one partition.
    pub(crate) async fn partition(brokers: &Brokers, topic: &TopicSpec, partition: i32) -> Result<Self, Error> {
        let ends = topic::end_offsets(brokers, &topic.name, topic.partitions).await?;
        let range = usize::try_from(partition).ok().and_then(|partition| ends.get(partition)).copied();
        Self::open(brokers, topic, range.into_iter().map(|(low, high)| (partition, low, high)))
    }

    /// The next records; none at the end.
    pub(crate) async fn next(&mut self) -> Result<Vec<Message>, Error> {
        const DOING: &str = "reading the topic to its end";
        let Some(consumer) = &mut self.consumer else { return Ok(Vec::new()) };
        let give_up = Instant::now() + PATIENCE;
        while !self.ends.is_empty() {
            let mut messages = consumer.poll_batch(RECORDS_MAX, WAIT).await?;
            messages.retain(|message| self.ends.get(&message.partition).is_some_and(|end| message.offset < *end));
            let at_end = consumer.at_end();
            self.ends.retain(|partition, end| !at_end && consumer.position(*partition) < Some(*end));
            if !messages.is_empty() {
                return Ok(messages);
            }
            if let Some(trouble) = consumer.trouble(TROUBLE_MAX) {
                return Err(trouble.into());
            }
            if Instant::now() >= give_up {
                return Err(kafka::Error::Deadline { doing: DOING, waited_ms: PATIENCE.as_millis() }.into());
            }
        }
        Ok(Vec::new())
    }
}

/// Whose event a record is. What is not ours, or has no identity, is nobody's here.
pub(crate) fn identity(payload: &[u8]) -> Option<(OrderId, Version)> {
    #[derive(serde::Deserialize)]
    struct Identity {
        order_id: OrderId,
        version: Version,
    }
    let identity: Identity = serde_json::from_slice(payload).ok()?;
    Some((identity.order_id, identity.version))
}

/// An event of the topic that a relay has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) order_id: Uuid,
    pub(crate) version: i32,
    pub(crate) event_id: Uuid,
}

impl Published {
    /// None when another writer made the record: a relay's has the order's id as its key, and the event's id.
    pub(crate) fn read(message: &Message) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Body {
            order_id: Uuid,
            version: i32,
            event_id: Uuid,
        }
        let Body { order_id, version, event_id } = serde_json::from_slice(message.payload.as_deref()?).ok()?;
        let key = order_id.to_string();
        (message.key.as_deref() == Some(key.as_bytes()) && version > 0).then_some(Self { order_id, version, event_id })
    }
}
