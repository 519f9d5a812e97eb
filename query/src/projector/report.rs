//! What the projector tells of a topic and of a batch: the metrics, and what an operator must know.

use std::time::Duration;

use super::Summary;
use crate::batch::Batch;
use crate::metrics::{APPLIED, BATCH_RECORDS, DEAD_LETTERS, DUPLICATES, FORKS, PARKED, STEP_SECONDS};

impl Summary {
    pub(super) fn of(batch: &Batch) -> Self {
        Self {
            applied: batch.applied.len(),
            duplicates: batch.duplicates,
            parked: batch.newly_parked().count(),
            dead_letters: batch.dead_letters.len(),
        }
    }
}

/// Tells what became of a batch of so many records.
pub(super) fn batch(batch: &Batch, summary: Summary, records: usize, took: Duration) {
    count(APPLIED, summary.applied);
    metrics::counter!(DUPLICATES).increment(summary.duplicates);
    count(DEAD_LETTERS, summary.dead_letters);
    count(FORKS, batch.forks.len());
    metrics::histogram!(STEP_SECONDS).record(took);
    metrics::histogram!(BATCH_RECORDS).record(u32::try_from(records).unwrap_or(u32::MAX));
    for (order_id, version, _digest) in &batch.forks {
        tracing::error!(%order_id, %version, "two events contradict each other: the order is stopped");
    }
    for letter in &batch.dead_letters {
        let position = letter.record.position;
        tracing::warn!(
            partition = position.partition,
            offset = position.offset,
            reason = letter.reason.code(),
            detail = letter.detail,
            "a record was set aside"
        );
    }
    for parked in batch.newly_parked() {
        let (version, cause) = (parked.version, parked.cause.as_str());
        tracing::warn!(order_id = %parked.order_id, %version, cause, "an event waits");
    }
}

/// Tells how many events wait.
pub(super) fn waiting(events: i64) {
    metrics::gauge!(PARKED).set(f64::from(i32::try_from(events).unwrap_or(i32::MAX)));
}

/// Tells which partitions begin after their first record, and where.
pub(super) fn beheaded(partitions: &[(i32, i64)]) {
    for (partition, low) in partitions {
        tracing::error!(
            partition,
            first_offset = low,
            "the beginning of the topic is gone: orders whose first events it held wait until they are published again"
        );
    }
}

fn count(name: &'static str, events: usize) {
    metrics::counter!(name).increment(u64::try_from(events).unwrap_or(u64::MAX));
}
