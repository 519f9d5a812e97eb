//! Where a batch comes from: whose turn it is, what the tables are, and the topic with its troubles.

use std::pin::pin;

use chassis::telemetry::ErrorChain;
use chrono::Utc;

use super::{Projector, report};
use crate::checkpoint::Checkpoints;
use crate::generation::{Age, Builder, FIRST, Generation, Source};
use crate::intake::Incoming;
use crate::metrics;
use crate::reader::{News, NotReadable, Opening};
use crate::store::{self, Turn};

/// What reading brought.
pub(super) enum Read {
    Records(Vec<Incoming>),
    Nothing,
    NotReadable,
    NotOurTurn,
}

impl Projector {
    /// Waits for records. Dropping this future loses nothing.
    pub(super) async fn read(&mut self) -> Result<Read, store::Error> {
        let turn = self.writer.turn();
        if self.served {
            ::metrics::gauge!(metrics::OWNER).set(if turn == Turn::NotOurs { 0.0 } else { 1.0 });
        }
        match turn {
            Turn::Ours => {}
            Turn::New => self.begin_anew(),
            Turn::NotOurs => {
                self.begin_anew();
                self.progress.stands_by();
                return Ok(Read::NotOurTurn);
            }
        }
        if !self.retried {
            self.meet().await?;
            self.retry_newer().await?;
            self.retried = true;
        }
        if self.served {
            self.look_for_wishes().await?;
        }
        let read = if self.reader.is_open() { self.poll_and_look().await } else { self.open().await? };
        match read {
            Ok(records) if records.is_empty() => Ok(Read::Nothing),
            Ok(records) => Ok(Read::Records(records)),
            Err(error) => {
                self.lost(&error);
                Ok(Read::NotReadable)
            }
        }
    }

    /// Learns what the tables are; the first generation's own beginning is written here.
    async fn meet(&mut self) -> Result<(), store::Error> {
        let mut transaction = self.writer.begin().await?;
        let begun = Generation::begun(FIRST, Source::Topic, Builder::Service, Utc::now().timestamp_micros());
        let generation = match transaction.generation().await? {
            Some(generation) => generation,
            None => {
                transaction.begin_generation(&begun).await?;
                begun
            }
        };
        if generation.revisions.age() == Age::Newer {
            let reason = format!("generation {} was filled by a newer program", generation.number);
            return Err(store::Error::Unusable { reason });
        }
        transaction.settle_currency(self.default_currency).await?;
        transaction.commit().await?;
        self.filling.revisions = generation.revisions;
        Ok(())
    }

    /// Forgets what was read: others may have written since.
    fn begin_anew(&mut self) {
        self.reader.close();
        self.forget_healing();
        self.retried = false;
    }

    async fn poll_and_look(&mut self) -> Result<Vec<Incoming>, NotReadable> {
        loop {
            // Who looks asks the consumer.
            self.reader.catch_up().await?;
            self.reader.look(&self.checkpoints);
            let news = tokio::select! {
                biased;
                news = self.reader.next(self.default_currency) => news?,
                () = tokio::time::sleep_until(self.look_at.into()), if self.served => News::Records(Vec::new()),
            };
            match news {
                News::Records(records) => return Ok(records),
                News::Same(proof) => {
                    if let Some(proof) = proof {
                        self.checkpoints.prove(proof);
                    }
                    self.progress.reading();
                    self.readable(true);
                }
            }
        }
    }

    /// Surveys the topic and starts reading. What the store says counts, not what this process remembers.
    async fn open(&mut self) -> Result<Result<Vec<Incoming>, NotReadable>, store::Error> {
        let mut transaction = self.writer.begin().await?;
        let checkpoints = transaction.checkpoints().await?;
        drop(transaction);
        let opening = match self.survey(&checkpoints).await? {
            Ok(opening) => opening,
            Err(error) => return Ok(Err(error)),
        };
        self.checkpoints = checkpoints;
        self.checkpoints.prove_all();
        if let Some(reason) = &opening.replaced {
            tracing::error!(
                reason,
                topic = opening.origin.topic,
                "the topic is not the one that was read so far: it is read again from its beginning, over the rows \
                 there are; what they know already changes nothing"
            );
            ::metrics::counter!(metrics::RESTARTS_FROM_ZERO).increment(1);
            let mut transaction = self.writer.begin().await?;
            transaction.forget_checkpoints().await?;
            transaction.commit().await?;
            self.checkpoints = Checkpoints::default();
        }
        report::beheaded(&opening.beheaded);
        if let Err(error) = self.reader.open(&opening) {
            return Ok(Err(error));
        }
        self.checkpoints.of = Some(opening.origin);
        self.progress.reading();
        self.progress.stepped(&self.checkpoints, None);
        self.readable(true);
        tracing::info!("the topic is verified and being read");
        Ok(Ok(Vec::new()))
    }

    /// Surveys the topic. Brokers that do not answer take their time, and operators need not wait for them.
    async fn survey(&mut self, checkpoints: &Checkpoints) -> Result<Result<Opening, NotReadable>, store::Error> {
        let surveyor = self.reader.surveyor();
        let mut survey = pin!(surveyor.survey(checkpoints));
        loop {
            tokio::select! {
                biased;
                surveyed = &mut survey => return Ok(surveyed),
                () = tokio::time::sleep_until(self.look_at.into()), if self.served => self.look_for_wishes().await?,
            }
        }
    }

    /// The topic cannot be read: what was read stays served, and the next step tries again.
    fn lost(&mut self, error: &NotReadable) {
        if !matches!(error, NotReadable::Kafka(chassis::kafka::Error::Transient { .. })) {
            self.reader.close();
        }
        let why = ErrorChain(error).to_string();
        self.readable(false);
        if self.progress.not_readable(why.clone()) {
            tracing::warn!(error = why, "the topic cannot be read now");
        }
    }

    pub(super) fn tell_waiting(&self, events: i64) {
        if self.served {
            report::waiting(events);
        }
    }

    fn readable(&self, readable: bool) {
        if self.served {
            ::metrics::gauge!(metrics::TOPIC_READABLE).set(if readable { 1.0 } else { 0.0 });
        }
    }
}
