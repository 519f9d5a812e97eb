//! The next records, read and decoded on another processor while the ones before are being written.

use std::time::Duration;

use chassis::kafka;
use chassis::kafka::consumer::Consumer;
use domain::Currency;
use tokio_util::task::AbortOnDropHandle;

use super::{BATCH_BYTES_MAX, NotReadable, TopicReader};
use crate::intake::{Incoming, Record};

/// Who reads so many at once is behind, so that more of them are there: they are read while these are written.
const AHEAD_RECORDS_MIN: usize = 1_000;

/// A batch that has come so far.
pub(super) type Read = Result<Vec<Incoming>, kafka::Error>;

/// The consumer is away to fetch what is there already.
pub(super) type Ahead = AbortOnDropHandle<(Consumer, Read)>;

/// Sends the consumer for at most `records_max` records. It waits for none: whoever has nothing to write waits himself.
fn fetch(mut consumer: Consumer, records_max: usize, default_currency: Currency) -> Ahead {
    AbortOnDropHandle::new(tokio::spawn(async move {
        let read = match consumer.poll_sized(records_max, BATCH_BYTES_MAX, Duration::ZERO).await {
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
            self.ahead = Some(fetch(consumer, self.batch_records_max, default_currency));
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
        let (consumer, read) =
            come_back.map_err(|source| kafka::Error::Thread { doing: "reading ahead", source })?;
        self.consumer = Some(consumer);
        self.ready = Some(read).filter(|read| !matches!(read, Ok(records) if records.is_empty()));
        Ok(())
    }
}
