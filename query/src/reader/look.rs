//! Looks at the topic beside the reading: whether it is still the one that was read, with the settings that it must have.

use std::time::Duration;

use chassis::kafka;
use chassis::kafka::topic::{Drift, Unfit};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{News, NotReadable, STALL_MAX, TopicReader, ends_before};
use crate::checkpoint::{Checkpoint, Checkpoints, Proof};

/// How often the topic is looked at.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);
/// How soon it is looked at again while the brokers do not answer.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How often a look verifies the topic's settings and the number of its partitions.
pub(super) const VERIFY_INTERVAL: Duration = Duration::from_secs(5);
/// How long each question of a look may take. One that begins while the brokers are away is answered when they are back.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(2);

/// A look at the topic, beside the reading: it takes some questions to the brokers and a connection of its own, and whoever
/// waits for a command of theirs would wait for all of it.
pub(super) type Look = AbortOnDropHandle<Result<Looked, NotReadable>>;

/// What a look has shown.
#[derive(Debug)]
pub(super) struct Looked {
    proof: Option<Proof>,
    /// Where the partitions end.
    ends: Vec<i64>,
    /// Whether the settings are as they must be, if that was asked.
    fit: Option<Result<(), Drift>>,
}

impl TopicReader {
    /// Begins to look whether the topic is still the one that was read, when it is time to; [`TopicReader::next`] tells
    /// what was found.
    ///
    /// Every partition must reach to our position; and one of them in turn must still have the record that was there
    /// at the last look.
    pub fn look(&mut self, checkpoints: &Checkpoints) {
        let Some(consumer) = &self.consumer else { return };
        if self.look.is_some() || Instant::now() < self.next_look {
            return;
        }
        let positions = (0..self.spec.partitions).map(|partition| consumer.position(partition).unwrap_or(0));
        let positions: Vec<_> = positions.collect();
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn.checked_rem(checkpoints.partitions.len());
        let checkpoint = turn.and_then(|turn| checkpoints.partitions.get(turn)).copied();
        let verifies = Instant::now() >= self.next_verify;
        let surveyor = self.surveyor();
        self.look = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            surveyor.look_at(&positions, checkpoint, verifies).await
        })));
    }

    async fn look_at(
        &self,
        positions: &[i64],
        checkpoint: Option<Checkpoint>,
        verifies: bool,
    ) -> Result<Looked, NotReadable> {
        let asker = self.asker()?.within(QUESTION_TIMEOUT);
        let ends = asker.end_offsets(&self.spec.name, self.spec.partitions).await?;
        for ((partition, position), (_low, high)) in (0..).zip(positions).zip(&ends) {
            if high < position {
                return Err(NotReadable::Replaced { reason: ends_before(partition, *high, *position) });
            }
        }
        let fit = if verifies {
            match asker.verify(&self.spec).await {
                Ok(_verified) => Some(Ok(())),
                Err(Unfit::Drift(drift)) => Some(Err(drift)),
                Err(Unfit::Unverified(error)) => return Err(error.into()),
                Err(missing @ Unfit::Missing { .. }) => return Err(missing.into()),
            }
        } else {
            None
        };
        let ends = ends.into_iter().map(|(_low, high)| high).collect();
        let Some(Checkpoint { partition, last, proven }) = checkpoint else {
            return Ok(Looked { proof: None, ends, fit });
        };
        let waited_ms = QUESTION_TIMEOUT.as_millis();
        let late = |_elapsed| kafka::Error::Deadline { doing: "looking up a record", waited_ms };
        match timeout(QUESTION_TIMEOUT, self.contradiction(partition, proven)).await.map_err(late)?? {
            Some(reason) => Err(NotReadable::Replaced { reason }),
            None => Ok(Looked { proof: Some(Proof { partition, anchor: last }), ends, fit }),
        }
    }

    /// Takes in what a look has shown.
    pub(super) fn learn(&mut self, looked: Result<Looked, NotReadable>) -> Result<News, NotReadable> {
        let now = Instant::now();
        match looked {
            Ok(Looked { proof, ends, fit }) => {
                self.doubtful = false;
                self.away = None;
                self.next_look = now + INTERVAL;
                if let Some(fit) = fit {
                    self.drift = fit.err();
                    self.next_verify = now + VERIFY_INTERVAL;
                }
                if let Some(consumer) = &mut self.consumer {
                    consumer.answered();
                }
                if !self.is_behind(&ends) {
                    self.waits_since = None;
                } else if self.waits_since.get_or_insert(now).elapsed() > STALL_MAX {
                    let waited_ms = STALL_MAX.as_millis();
                    return Err(
                        kafka::Error::Deadline { doing: "waiting for records that are there", waited_ms }.into()
                    );
                }
                Ok(News::Same(proof))
            }
            Err(NotReadable::Kafka(error)) => {
                self.next_look = now + RETRY_INTERVAL;
                self.do_not_answer(&error);
                Ok(News::Unanswered)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the topic has more for us. Where that lasts and nothing comes, the consumer has lost its way.
    fn is_behind(&self, ends: &[i64]) -> bool {
        let Some(consumer) = &self.consumer else { return false };
        let behind = |(partition, end): (i32, &i64)| {
            let position = consumer.position(partition).unwrap_or(*end);
            position < *end && !consumer.unreadable().any(|(stuck, _why)| stuck == partition)
        };
        (0..).zip(ends).any(behind)
    }
}
