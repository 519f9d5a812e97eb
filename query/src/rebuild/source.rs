//! The sources of a rebuild: the topic from offset zero, or the event log and then the topic from where it ended when the
//! log was begun.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chassis::kafka;
use chassis::kafka::consumer::{Consumer, last_record};
use chassis::kafka::topic::Asker;
use domain::{OrderId, Version, schema};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{AWAY_MAX, Error, Making, Phase, REST, Rebuild, TOPIC_WAIT_MAX, stopping};
use crate::checkpoint::{Anchor, Checkpoint, Checkpoints, Origin};
use crate::generation::Source;
use crate::intake::{Digest, Incoming, Record};
use crate::log::LogClient;
use crate::reader::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, TopicReader};
use crate::store::{self, Store};
use crate::verify::SourceEvents;

/// Events of the log that are asked for, and written, together.
const PAGE_EVENTS_MAX: u32 = 2_000;
/// How long a poll of the second reading waits.
const POLL_WAIT: Duration = Duration::from_millis(500);

/// Where the topic ended when the log was begun.
#[derive(Debug, Serialize, Deserialize)]
struct Ends {
    cluster_id: String,
    topic: String,
    /// Partition, offset of its last record, and that record's digest.
    last: Vec<(i32, i64, Digest)>,
}

impl Ends {
    fn checkpoints(&self) -> Checkpoints {
        let checkpoint = |(partition, offset, digest): &(i32, i64, Digest)| {
            let last = Anchor { offset: *offset, digest: *digest };
            Checkpoint { partition: *partition, last, proven: last }
        };
        let of = Origin { cluster_id: self.cluster_id.clone(), topic: self.topic.clone() };
        Checkpoints { of: Some(of), partitions: self.last.iter().map(checkpoint).collect() }
    }
}

impl Rebuild {
    /// The first offset of every partition, and the one up to which it can be read now: not behind an open transaction.
    ///
    /// It waits for brokers that do not answer.
    pub(super) async fn ends(&self, shutdown: &CancellationToken) -> Result<Vec<(i64, i64)>, Error> {
        let kafka = &self.projecting.kafka;
        let (asker, since) = (Asker::for_readers(&kafka.brokers)?, Instant::now());
        loop {
            stopping(shutdown)?;
            match asker.end_offsets(&kafka.topic, kafka.partitions).await {
                Ok(ends) => return Ok(ends),
                Err(kafka::Error::Transient { .. } | kafka::Error::Deadline { .. }) if since.elapsed() < AWAY_MAX => {
                    sleep(REST).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A topic whose head is gone yields a confident, partial read model (rules R11).
    pub(super) async fn refuse_truncated(&self, shutdown: &CancellationToken) -> Result<(), Error> {
        for (partition, (low, _high)) in (0..).zip(self.ends(shutdown).await?) {
            if low > 0 {
                return Err(Error::Truncated { partition, low });
            }
        }
        Ok(())
    }

    /// Reads the log to its end, and then sets the checkpoints to where the topic ended before.
    pub(super) async fn read_log(&self, making: &mut Making, shutdown: &CancellationToken) -> Result<(), Error> {
        let log = self.projecting.log.as_ref().ok_or(Error::NoLog)?;
        let mut transaction = making.projector.writer().begin().await?;
        let (after, ends) = transaction.log_state().await?;
        let on_the_topic = !transaction.checkpoints().await?.partitions.is_empty();
        drop(transaction);
        if on_the_topic {
            return Ok(());
        }
        let ends: Ends = match ends {
            Some(kept) => serde_json::from_str(&kept).map_err(store::Error::from)?,
            None => self.keep_ends(making).await?,
        };
        if after.as_deref() != Some(END) {
            let from = after.as_deref().and_then(place);
            self.read_log_from(log, from, making, shutdown).await?;
        }
        let mut transaction = making.projector.writer().begin().await?;
        transaction.start_at(&ends.checkpoints()).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn read_log_from(
        &self,
        log: &LogClient,
        mut after: Option<(OrderId, Version)>,
        making: &mut Making,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut done = 0;
        loop {
            stopping(shutdown)?;
            let page = log.page(after, PAGE_EVENTS_MAX).await?;
            let records: Vec<Record> = page.records.into_iter().map(|told| told.record).collect();
            let read = records.len();
            after = page.next;
            let kept = after.map_or_else(|| END.to_owned(), |(order_id, version)| format!("{order_id}:{version}"));
            making.projector.apply_log(records, &kept).await?;
            making.read += u64::try_from(read).unwrap_or(0);
            done += i64::try_from(read).unwrap_or(0);
            self.tell_log(making, done, started);
            if after.is_none() {
                break;
            }
        }
        making.reading += started.elapsed();
        Ok(())
    }

    fn tell_log(&self, making: &mut Making, done: i64, started: Instant) {
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(1).max(1);
        making.rate_per_s = u64::try_from(done).unwrap_or(0) * 1_000 / elapsed_ms;
        // How long the log is only its end tells.
        making.note(done, done);
        self.tell(making, Phase::Reading);
    }

    async fn keep_ends(&self, making: &mut Making) -> Result<Ends, Error> {
        let kafka = &self.projecting.kafka;
        let reader = TopicReader::new(kafka.brokers.clone(), kafka.topic_spec());
        let origin = reader.survey(&Checkpoints::default()).await?.origin;
        let mut last = Vec::new();
        for partition in 0..kafka.partitions {
            // Where nothing is left there is nothing to show that the topic is the same: it is read from what comes.
            if let Some(found) = last_record(&kafka.brokers, &kafka.topic, partition).await? {
                last.push((partition, found.offset, schema::digest(found.payload.as_deref().unwrap_or_default())));
            }
        }
        let ends = Ends { cluster_id: origin.cluster_id, topic: origin.topic, last };
        let mut transaction = making.projector.writer().begin().await?;
        transaction.keep_log_anchors(&serde_json::to_string(&ends).map_err(store::Error::from)?).await?;
        transaction.commit().await?;
        Ok(ends)
    }

    /// Reads the source a second time, for the comparison.
    pub(super) async fn read_again(
        &self,
        making: &Making,
        events: &mut SourceEvents,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        match (self.source, &self.projecting.log) {
            (Source::Log, Some(log)) => self.read_log_again(log, events, shutdown).await,
            _ => self.read_topic_again(making, events, shutdown).await,
        }
    }

    async fn read_log_again(
        &self,
        log: &LogClient,
        events: &mut SourceEvents,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let mut after = None;
        loop {
            stopping(shutdown)?;
            let page = log.page(after, PAGE_EVENTS_MAX).await?;
            for told in page.records {
                events.see(&Incoming::read(told.record, self.projecting.default_currency))?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the topic until it has told what the log told: the relay may be behind. What does not come in time is found
    /// missing by the comparison.
    pub(super) async fn wait_for_topic(
        &self,
        making: &mut Making,
        events: &SourceEvents,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let since = Instant::now();
        let mut behind: Vec<_> = events.last_versions().collect();
        loop {
            self.read_topic(making, shutdown).await?;
            behind = still_behind(&making.store, behind).await?;
            if behind.is_empty() || since.elapsed() > TOPIC_WAIT_MAX {
                return Ok(());
            }
            sleep(REST).await;
        }
    }

    /// What the topic has up to where the generation is, by a reader of its own.
    pub(super) async fn read_topic_again(
        &self,
        making: &Making,
        events: &mut SourceEvents,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let kafka = &self.projecting.kafka;
        let ends = self.ends(shutdown).await?;
        let (mut from, mut left) = (Vec::new(), std::collections::BTreeMap::new());
        for checkpoint in &making.projector.checkpoints().partitions {
            let low = usize::try_from(checkpoint.partition).ok().and_then(|at| ends.get(at)).map_or(0, |(low, _)| *low);
            if low < checkpoint.next_offset() {
                from.push((checkpoint.partition, low));
                left.insert(checkpoint.partition, checkpoint.next_offset());
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let mut consumer = Consumer::assign(&kafka.brokers, &kafka.topic, &from, "order-query-verify")?;
        let since = Instant::now();
        let mut came = since;
        while !left.is_empty() {
            stopping(shutdown)?;
            let messages = consumer.poll_sized(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, POLL_WAIT).await?;
            if !messages.is_empty() || (consumer.outage().is_some() && since.elapsed() < AWAY_MAX) {
                came = Instant::now();
            } else if came.elapsed() > TOPIC_WAIT_MAX {
                return Err(Error::Topic("the second reading of the topic does not come to its end".to_owned()));
            }
            let mut records: Vec<_> = messages.into_iter().map(Record::from).collect();
            records
                .retain(|record| left.get(&record.position.partition).is_some_and(|end| record.position.offset < *end));
            for incoming in Incoming::read_all(records, self.projecting.default_currency).await {
                events.see(&incoming)?;
            }
            left.retain(|partition, end| consumer.position(*partition).is_none_or(|position| position < *end));
        }
        Ok(())
    }
}

/// In place of a place: the log was read to its end.
const END: &str = "end";

fn place(kept: &str) -> Option<(OrderId, Version)> {
    let (order_id, version) = kept.split_once(':')?;
    let order_id = OrderId(order_id.parse::<Uuid>().ok()?);
    Some((order_id, version.parse().ok().and_then(|number: i64| Version::try_from(number).ok())?))
}

/// Those of the orders that the generation does not have at their version yet.
async fn still_behind(store: &Store, orders: Vec<(OrderId, Version)>) -> Result<Vec<(OrderId, Version)>, store::Error> {
    let mut behind = Vec::new();
    for orders in orders.chunks(BATCH_RECORDS_MAX) {
        let ids: Vec<OrderId> = orders.iter().map(|(order_id, _version)| *order_id).collect();
        let found: HashMap<_, _> = store.order_versions(&ids).await?.into_iter().collect();
        let is_behind = |(id, version): &&(OrderId, Version)| found.get(id).is_none_or(|found| found < version);
        behind.extend(orders.iter().filter(is_behind).copied());
    }
    Ok(behind)
}
