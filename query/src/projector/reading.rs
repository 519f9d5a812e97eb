//! Where a batch comes from: whose turn it is, what the tables are, and the topic with its troubles.

use std::pin::pin;
use std::time::Duration;

use chrono::Utc;

use super::{Projector, report};
use crate::checkpoint::Checkpoints;
use crate::generation::{Age, Builder, FIRST, Generation, Source};
use crate::intake::Incoming;
use crate::metrics;
use crate::reader::{News, NotReadable, Opening, Trouble};
use crate::store::{self, Turn};

/// How long after the start the topic may be away before that is worth a warning.
const START_PATIENCE: Duration = Duration::from_secs(15);

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
            let answered = match &news {
                News::Records(records) => !records.is_empty(),
                News::Same(_proof) => true,
                News::Unanswered => false,
            };
            self.tell_reading(answered);
            match news {
                News::Records(records) if !records.is_empty() => return Ok(records),
                News::Records(nothing) => {
                    self.progress.passed(&self.reader.positions());
                    return Ok(nothing);
                }
                News::Same(Some(proof)) => self.checkpoints.prove(proof),
                News::Same(None) | News::Unanswered => {}
            }
        }
    }

    /// Tells how the reading goes; `answered`: the brokers have just given an answer or records.
    fn tell_reading(&mut self, answered: bool) {
        match self.reader.trouble() {
            None => self.tell_readable(answered),
            Some(trouble) => {
                if answered && !trouble.blind {
                    self.progress.answered();
                }
                self.tell_trouble(trouble);
            }
        }
    }

    fn tell_readable(&mut self, answered: bool) {
        if answered {
            self.progress.answered();
        }
        let Some((trouble, lasted)) = self.progress.reading() else { return };
        if self.served && std::mem::take(&mut self.told_trouble).is_some_and(|(_kind, warned)| warned) {
            tracing::info!(lasted_ms = lasted.as_millis(), was = trouble.why, "the topic can be read again");
        }
    }

    /// Says a trouble once, however long it lasts.
    fn tell_trouble(&mut self, trouble: Trouble) {
        let lasts = self.progress.not_readable(trouble.clone());
        let Trouble { kind, why, .. } = trouble;
        if self.told_trouble == Some((kind, true)) || !self.served {
            return;
        }
        // The service that makes the topic may start a moment later, and so may the brokers: that is no trouble yet.
        let starts = !self.progress.was_verified() && lasts < START_PATIENCE;
        if !starts {
            self.told_trouble = Some((kind, true));
            tracing::warn!(error = why, "the topic cannot be read as it should");
        } else if self.told_trouble.is_none() {
            self.told_trouble = Some((kind, false));
            tracing::info!(reason = why, "the topic cannot be read yet");
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
        self.progress.verified();
        self.progress.stepped(&self.checkpoints, None);
        self.tell_readable(true);
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
        self.tell_trouble(error.trouble());
    }

    pub(super) fn tell_waiting(&self, events: i64) {
        if self.served {
            report::waiting(events);
        }
    }
}
