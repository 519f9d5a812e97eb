//! Operators' wishes, granted between two batches: each part of one in a transaction of its own, together with what came
//! of it.

use std::time::{Duration, Instant};

use chassis::telemetry::ErrorChain;
use chrono::Utc;
use domain::{Currency, OrderId};
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::save::{self, Filling};
use super::{Projector, Summary};
use crate::batch::{Batch, ParkedKey};
use crate::checkpoint::Checkpoints;
use crate::intake::{Incoming, Position};
use crate::intervention::{Intervention, LetterKey, Outcome, Wish};
use crate::metrics;
use crate::store::{self, StoredLetter, Transaction};

/// How long at most until a wish is seen.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Wishes that are looked at together: as many as may wait.
pub(super) const UNDONE_MAX: u32 = 1_000;
/// Dead letters that are read again in one transaction.
const LETTERS_MAX: u32 = 200;
/// Orders that are judged afresh in one transaction.
const ORDERS_MAX: u32 = 100;

impl Projector {
    /// Grants a wish, or a part of one, when it is time to look for one.
    pub(super) async fn look_for_wishes(&mut self) -> Result<(), store::Error> {
        if Instant::now() < self.look_at {
            return Ok(());
        }
        // A batch of the topic is read between two parts of a long one.
        let granted = self.heal().await? | self.intervene().await?;
        self.look_at = Instant::now() + if granted { Duration::ZERO } else { LOOK_INTERVAL };
        Ok(())
    }

    /// Grants the first wish that waits, or the next part of it: in one transaction with what came of it. False when none
    /// waits.
    ///
    /// # Errors
    ///
    /// When the database fails in a way that may pass, or another node projects. Nothing is changed then.
    pub async fn intervene(&mut self) -> Result<bool, store::Error> {
        let started = Instant::now();
        let mut transaction = self.writer.begin().await?;
        let undone = transaction.undone(UNDONE_MAX).await?;
        drop(transaction);
        let Some(wished) = undone.into_iter().find(|wish| !self.is_asked(wish)) else {
            return Ok(false);
        };
        if let Some(Wish::HealOrder { order_id }) = Wish::from_stored(&wished.kind, &wished.target)
            && let Some(asked) = self.ask_to_heal(&wished, order_id)
        {
            return Ok(asked);
        }
        // Nobody else grants it meanwhile: the commit is fenced.
        let mut transaction = self.writer.begin().await?;
        let checkpoints = match self.reader.is_open() {
            true => self.checkpoints.clone(),
            false => transaction.checkpoints().await?,
        };
        let granting = Granting { checkpoints: &checkpoints, default_currency: self.default_currency };
        let granted = granting.grant(&mut transaction, wished.clone(), &self.filling).await;
        let Granted { wish, batch, waiting } = match granted {
            Ok(granted) => granted,
            Err(error) if may_pass(&error) => return Err(error),
            Err(error) => {
                drop(transaction);
                self.give_up(wished.id, &error).await?;
                return Ok(true);
            }
        };
        transaction.commit().await?;
        if let Some(waiting) = waiting {
            self.tell_waiting(waiting);
        }
        self.tell(&batch, Summary::of(&batch), 0, started.elapsed());
        told(&wish);
        Ok(true)
    }

    /// A wish that cannot be granted must not hold up the topic.
    pub(super) async fn give_up(&mut self, wish: Uuid, error: &store::Error) -> Result<(), store::Error> {
        let why = ErrorChain(error).to_string();
        tracing::error!(id = %wish, error = why, "an intervention failed");
        let mut transaction = self.writer.begin().await?;
        let undone = transaction.undone(UNDONE_MAX).await?;
        if let Some(mut wish) = undone.into_iter().find(|undone| undone.id == wish) {
            finish(&mut wish, Outcome::failed(why));
            transaction.progressed(&wish).await?;
        }
        transaction.commit().await
    }
}

/// Whether the same work may succeed when it is done again, by this node or another.
pub(super) fn may_pass(error: &store::Error) -> bool {
    error.is_transient() || matches!(error, store::Error::Superseded)
}

pub(super) fn told(wish: &Intervention) {
    let (id, kind, actor, outcome) = (wish.id, &wish.kind, wish.actor.as_deref().unwrap_or_default(), &wish.outcome);
    if wish.done_at_micros.is_some() {
        ::metrics::counter!(metrics::INTERVENTIONS).increment(1);
        tracing::info!(%id, kind, target = wish.target, actor, ?outcome, "an intervention is done");
    } else {
        tracing::debug!(%id, kind, ?outcome, "a part of an intervention is done");
    }
}

/// With what came of the last part of it.
pub(super) fn finish(wish: &mut Intervention, outcome: Outcome) {
    wish.outcome = std::mem::take(&mut wish.outcome).and(outcome);
    wish.done_at_micros = Some(Utc::now().timestamp_micros());
}

/// What is written in the transaction of a wish.
struct Granted {
    wish: Intervention,
    batch: Batch,
    waiting: Option<i64>,
}

/// What came of a part of a wish; `reached` when there may be a further one.
struct Part {
    batch: Batch,
    outcome: Outcome,
    reached: Option<String>,
}

struct Granting<'p> {
    checkpoints: &'p Checkpoints,
    default_currency: Currency,
}

impl Granting<'_> {
    async fn grant(
        &self,
        transaction: &mut Transaction<'_>,
        mut wish: Intervention,
        filling: &Filling,
    ) -> Result<Granted, store::Error> {
        let part = self.part(transaction, &wish).await?;
        let waiting = save::batch(transaction, &part.batch, self.checkpoints, filling).await?;
        match part.reached {
            Some(reached) => {
                wish.outcome = wish.outcome.and(part.outcome);
                wish.reached = Some(reached);
            }
            None => finish(&mut wish, part.outcome),
        }
        transaction.progressed(&wish).await?;
        Ok(Granted { wish, batch: part.batch, waiting })
    }

    async fn part(&self, transaction: &mut Transaction<'_>, wish: &Intervention) -> Result<Part, store::Error> {
        let reason = wish.reason.as_deref().unwrap_or_default();
        match Wish::from_stored(&wish.kind, &wish.target) {
            Some(Wish::RetryDeadLetter(key)) => {
                let found = transaction.dead_letter(&key).await?.filter(|letter| !letter.discarded);
                self.retry_letters(transaction, found.into_iter().collect()).await
            }
            Some(Wish::RetryDeadLetters) => {
                let after = reached(wish)?.unwrap_or_else(first_key);
                let letters = transaction.dead_letters_after(&after, LETTERS_MAX).await?;
                let last = letters.last().map(|letter| letter.key.clone()).filter(|_| full(&letters, LETTERS_MAX));
                let part = self.retry_letters(transaction, letters).await?;
                Ok(Part { reached: last.map(|last| serde_json::to_string(&last)).transpose()?, ..part })
            }
            Some(Wish::DiscardDeadLetter(key)) => {
                let now_micros = Utc::now().timestamp_micros();
                let discarded = usize::from(transaction.discard_letter(&key, reason, now_micros).await?);
                let outcome = Outcome { looked_at: discarded, discarded, ..Outcome::default() };
                Ok(Part { batch: self.batch(transaction, &[], &[]).await?, outcome, reached: None })
            }
            Some(Wish::RetryOrder { order_id }) => self.retry_orders(transaction, &[order_id]).await,
            Some(Wish::RetryParked) => {
                let orders = transaction.waiting_orders(reached(wish)?, ORDERS_MAX).await?;
                let last = orders.last().copied().filter(|_| full(&orders, ORDERS_MAX));
                let part = self.retry_orders(transaction, &orders).await?;
                Ok(Part { reached: last.map(|last| serde_json::to_string(&last)).transpose()?, ..part })
            }
            Some(Wish::DiscardParked { order_id, version, digest }) => {
                self.discard_parked(transaction, (order_id, version, digest), reason).await
            }
            other => {
                let why = other.map_or(
                    "this program does not know what that is",
                    |_heal| "the node that projects knows no event log: QUERY_LOG_URL is not set there",
                );
                let outcome = Outcome::failed(why);
                Ok(Part { batch: self.batch(transaction, &[], &[]).await?, outcome, reached: None })
            }
        }
    }

    /// A batch over what is known of these records and orders, whose changes no record of the topic brings about.
    async fn batch(
        &self,
        transaction: &mut Transaction<'_>,
        incoming: &[Incoming],
        orders: &[OrderId],
    ) -> Result<Batch, store::Error> {
        let known = transaction.known(incoming, orders).await?;
        let mut batch = Batch::new(known, self.default_currency);
        batch.continue_after(transaction.next_places(self.checkpoints).await?);
        Ok(batch)
    }

    async fn retry_letters(
        &self,
        transaction: &mut Transaction<'_>,
        letters: Vec<StoredLetter>,
    ) -> Result<Part, store::Error> {
        let read = |letter: StoredLetter| (letter.key, Incoming::read(letter.record, self.default_currency));
        let (keys, incoming): (Vec<LetterKey>, Vec<Incoming>) = letters.into_iter().map(read).unzip();
        let mut batch = self.batch(transaction, &incoming, &[]).await?;
        let mut outcome = Outcome { looked_at: keys.len(), ..Outcome::default() };
        for (key, incoming) in keys.iter().zip(incoming) {
            match batch.retry(incoming) {
                Some((reason, detail)) => {
                    outcome.set_aside += 1;
                    transaction.renew_letter(key, reason, &detail).await?;
                }
                None => transaction.remove_letter(key).await?,
            }
        }
        outcome.waiting = batch.newly_parked().filter(|parked| keys.iter().any(|key| of(key, parked.position))).count();
        Ok(Part { outcome: outcome.and(came_of(&batch)), batch, reached: None })
    }

    async fn retry_orders(&self, transaction: &mut Transaction<'_>, orders: &[OrderId]) -> Result<Part, store::Error> {
        let mut batch = self.batch(transaction, &[], orders).await?;
        let mut outcome = Outcome::default();
        for order_id in orders {
            outcome.looked_at += batch.rejudge(*order_id);
            outcome.waiting += batch.waiting(*order_id);
        }
        Ok(Part { outcome: outcome.and(came_of(&batch)), batch, reached: None })
    }

    async fn discard_parked(
        &self,
        transaction: &mut Transaction<'_>,
        key: ParkedKey,
        reason: &str,
    ) -> Result<Part, store::Error> {
        let (order_id, version, digest) = key;
        let mut batch = self.batch(transaction, &[], &[order_id]).await?;
        let mut outcome = Outcome::default();
        if batch.discard(order_id, version, digest) {
            let now_micros = Utc::now().timestamp_micros();
            outcome.discarded = usize::from(transaction.discard_parked(key, reason, now_micros).await?);
            outcome.looked_at = outcome.discarded;
        }
        outcome.waiting = batch.waiting(order_id);
        Ok(Part { outcome: outcome.and(came_of(&batch)), batch, reached: None })
    }
}

pub(super) fn came_of(batch: &Batch) -> Outcome {
    Outcome {
        applied: batch.applied.len(),
        duplicates: usize::try_from(batch.duplicates).unwrap_or(usize::MAX),
        set_aside: batch.dead_letters.len(),
        ..Outcome::default()
    }
}

fn of(key: &LetterKey, position: Position) -> bool {
    key.position == position
}

fn full<T>(page: &[T], limit: u32) -> bool {
    u32::try_from(page.len()).is_ok_and(|length| length >= limit)
}

/// Up to where the parts of a wish came that are done.
fn reached<T: DeserializeOwned>(wish: &Intervention) -> Result<Option<T>, store::Error> {
    let reached = wish.reached.as_deref().map(serde_json::from_str).transpose();
    reached.map_err(store::Error::corrupt("how far an intervention is"))
}

/// Before every dead letter.
fn first_key() -> LetterKey {
    let position = Position { partition: i32::MIN, offset: i64::MIN };
    LetterKey { topic: String::new(), position, digest: [0; 16] }
}
