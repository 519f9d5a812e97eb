//! The next records, read and decoded on another processor while the ones before are being written.

use std::time::Duration;

use chassis::kafka;
use chassis::kafka::consumer::Consumer;
use domain::Currency;
use tokio_util::task::AbortOnDropHandle;

use super::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, NotReadable, TopicReader};
use crate::intake::{Incoming, Record};

/// Who reads so many at once is behind, so that more of them are there: they are read while these are written.
const AHEAD_RECORDS_MIN: usize = 1_000;

/// A batch that has come so far.
pub(super) type Read = Result<Vec<Incoming>, kafka::Error>;

/// The consumer is away to fetch what is there already.
pub(super) type Ahead = AbortOnDropHandle<(Consumer, Read)>;

/// Sends the consumer for the next records. It waits for none: whoever has nothing to write waits himself.
fn fetch(mut consumer: Consumer, default_currency: Currency) -> Ahead {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let read = match consumer.poll_sized(BATCH_RECORDS_MAX, BATCH_BYTES_MAX, Duration::ZERO).await {
            Ok(messages) => {
                let records = messages.into_iter().map(Record::from).collect();
                Ok(Incoming::read_beside(records, default_currency).await)
            }
            Err(error) => Err(error),
        };
        (consumer, read)
    }))
}

impl TopicReader {
    /// Reads on while `records` are written. What was read is lost when that fails, and [`TopicReader::close`] is called.
    pub fn read_ahead(&mut self, records: usize, default_currency: Currency) {
        if records >= AHEAD_RECORDS_MIN
            && self.ready.is_none()
            && let Some(consumer) = self.consumer.take()
        {
            self.ahead = Some(fetch(consumer, default_currency));
        }
    }

    /// Waits for what is read ahead. Dropping this future loses nothing.
    ///
    /// # Errors
    ///
    /// When the reading ended with a panic: then there is no consumer any more.
    pub async fn catch_up(&mut self) -> Result<(), NotReadable> {
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let come_back = ahead.await;
        self.ahead = None;
        let (consumer, read) = come_back.map_err(|source| kafka::Error::Thread { doing: "reading ahead", source })?;
        self.consumer = Some(consumer);
        self.ready = Some(read).filter(|read| !matches!(read, Ok(records) if records.is_empty()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use chassis::kafka::TopicSpec;
    use chassis::kafka::producer::{Outgoing, Producer};
    use chassis::kafka::topic::ensure;
    use chassis::testkit;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::checkpoint::Checkpoints;
    use crate::reader::News;

    const RECORDS: usize = 2_500;
    const WHOLE_TEST: Duration = Duration::from_secs(20);

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_read_ahead_comes_next_once_and_in_order() {
        let spec = TopicSpec { name: testkit::topic("ahead"), partitions: 1, replication: 1 };
        ensure(&testkit::brokers(), &spec).await.unwrap();
        let record = Outgoing { key: b"k", payload: b"{}", headers: Vec::new(), partition: Some(0) };
        let producer = Producer::connect(&testkit::brokers(), "test").unwrap();
        producer.send_batch(&spec.name, &vec![record; RECORDS], WHOLE_TEST).await.unwrap();

        let usd = "USD".parse().unwrap();
        let mut reader = TopicReader::new(testkit::brokers(), spec);
        let opening = reader.survey(&Checkpoints::default()).await.unwrap();
        reader.open(&opening).unwrap();
        let (mut offsets, mut begun) = (Vec::new(), 0);
        let since = Instant::now();
        while offsets.len() < RECORDS {
            assert!(since.elapsed() < WHOLE_TEST, "{} records", offsets.len());
            // Whoever waits may give up, and come back.
            if let Some(Ok(News::Records(records))) = reader.next(usd).now_or_never() {
                offsets.extend(records.iter().map(|incoming| incoming.record.position.offset));
                reader.read_ahead(AHEAD_RECORDS_MIN - 1, usd);
                assert!(reader.ahead.is_none(), "nothing suggests that there is more");
                reader.read_ahead(AHEAD_RECORDS_MIN, usd);
                begun += usize::from(reader.ahead.is_some());
                assert!(reader.is_open());
            }
            tokio::task::yield_now().await;
        }
        assert!(begun > 0);
        assert_eq!(offsets, (0..).take(RECORDS).collect::<Vec<i64>>());
        reader.close();
        assert!(!reader.is_open());
    }
}
