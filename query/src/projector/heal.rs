//! What the event log tells of orders that miss events, applied like any other record, without moving a checkpoint.

use std::time::{Duration, Instant};

use chassis::telemetry::ErrorChain;
use domain::OrderId;

use super::intervene::{UNDONE_MAX, came_of, finish, may_pass, told};
use super::{Projector, Summary, save};
use crate::batch::Batch;
use crate::healing::{Ask, Found, Healing};
use crate::intake::{Incoming, Record};
use crate::intervention::{Intervention, Outcome};
use crate::log::FROM_THE_LOG;
use crate::metrics::{HEAL_FAILURES, HEALED};
use crate::store;

impl Projector {
    /// Lets a healer fetch what orders miss.
    #[must_use]
    pub fn healed_by(self, healing: Healing) -> Self {
        Self { healing: Some(healing), ..self }
    }

    /// Whether a wish is with the healer already.
    pub(super) fn is_asked(&self, wish: &Intervention) -> bool {
        self.asked.contains(&wish.id)
    }

    /// Asks the healer about an order. None when that cannot be; false when it has too much to do.
    pub(super) fn ask_to_heal(&mut self, wish: &Intervention, order_id: OrderId) -> Option<bool> {
        let healing = self.healing.as_ref()?;
        let asked = healing.asks.try_send(Ask { wish: wish.id, order_id }).is_ok();
        if asked {
            self.asked.insert(wish.id);
        }
        Some(asked)
    }

    /// Applies what the healer found, if it found something. False when it did not.
    ///
    /// # Errors
    ///
    /// When the database fails, or another node projects. Nothing is changed then, and the order is found again.
    pub async fn heal(&mut self) -> Result<bool, store::Error> {
        let Some(found) = self.healing.as_mut().and_then(|healing| healing.found.try_recv().ok()) else {
            return Ok(false);
        };
        if let Some(wish) = &found.wish {
            self.asked.remove(wish);
        }
        let wish = found.wish;
        match self.apply_found(found).await {
            Err(error) if !may_pass(&error) => {
                // An order that cannot be healed must not hold up the topic.
                tracing::error!(error = %ErrorChain(&error), "what the event log tells of an order cannot be applied");
                ::metrics::counter!(HEAL_FAILURES).increment(1);
                if let Some(wish) = wish {
                    self.give_up(wish, &error).await?;
                }
            }
            applied => applied?,
        }
        Ok(true)
    }

    /// Forgets what was asked and found: others may project meanwhile.
    pub(super) fn forget_healing(&mut self) {
        self.asked.clear();
        while self.healing.as_mut().is_some_and(|healing| healing.found.try_recv().is_ok()) {}
    }

    async fn apply_found(&mut self, Found { wish, order_id, events }: Found) -> Result<(), store::Error> {
        let started = Instant::now();
        let mut transaction = self.writer.begin().await?;
        let mut wish = match wish {
            Some(id) => transaction.undone(UNDONE_MAX).await?.into_iter().find(|wish| wish.id == id),
            None => None,
        };
        let (events, failure) = match events {
            Ok(events) => (events, None),
            Err(why) => (Vec::new(), Some(why)),
        };
        let checkpoints = match self.reader.is_open() {
            true => self.checkpoints.clone(),
            false => transaction.checkpoints().await?,
        };
        let read = |record: Record| Incoming::read(record, self.default_currency);
        let incoming: Vec<Incoming> = events.into_iter().map(read).collect();
        let known = transaction.known(&incoming, &[order_id]).await?;
        let mut batch = Batch::new(known, self.default_currency);
        batch.continue_after(transaction.next_places(&checkpoints).await?);
        let looked_at = incoming.len();
        // Whatever waited may have been healed by the topic meanwhile: then the partition is not known, nor the need.
        if let Some(partition) = batch.partition_of(order_id) {
            for mut incoming in incoming {
                incoming.record.position.partition = partition;
                batch.take_besides(incoming);
            }
        }
        let waiting = save::batch(&mut transaction, &batch, &checkpoints, &self.filling).await?;
        if let Some(wish) = &mut wish {
            let waiting = batch.waiting(order_id);
            finish(wish, Outcome { looked_at, waiting, error: failure, ..came_of(&batch) });
            transaction.progressed(wish).await?;
        }
        transaction.commit().await?;
        if let Some(waiting) = waiting {
            self.tell_waiting(waiting);
        }
        self.tell_healed(order_id, &batch, started.elapsed());
        if let Some(wish) = &wish {
            told(wish);
        }
        Ok(())
    }

    fn tell_healed(&self, order_id: OrderId, batch: &Batch, took: Duration) {
        let from_the_log = batch.applied.iter().filter(|applied| applied.record.position.offset == FROM_THE_LOG.offset);
        let healed = from_the_log.count();
        ::metrics::counter!(HEALED).increment(u64::try_from(healed).unwrap_or(u64::MAX));
        if healed > 0 {
            tracing::warn!(%order_id, events = healed, "missing events were taken from the event log");
        }
        self.tell(batch, Summary::of(batch), 0, took);
    }
}
