//! Holes, filled from the event log: what an order waits for, and the topic does not tell.
//!
//! The healer finds orders that have waited for long and fetches what they miss; the projector applies it like any other
//! record, so an event that comes after all is a duplicate. The two talk through bounded queues, and neither waits for
//! the other: a log that does not answer holds up nothing.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use chassis::telemetry::ErrorChain;
use chrono::Utc;
use domain::{OrderId, Version};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::intake::Record;
use crate::log::{LogClient, LogError};
use crate::metrics::HEAL_FAILURES;
use crate::progress::Progress;
use crate::store::{self, Store};

/// For how long an order waits for a missing event before the log is asked: what is published late comes by itself.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How often orders are looked for that wait.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Orders that are looked at together.
const ORDERS_MAX: u32 = 16;
/// Missing events of one order that are fetched together.
const EVENTS_MAX: u32 = 1_000;
/// Waiting events of one order that are looked at.
const WAITING_MAX: u32 = 1_000;
/// Orders that are asked about, or found, at once.
const QUEUE_MAX: usize = 16;

/// An order that an operator wants healed.
#[derive(Debug)]
pub struct Ask {
    /// The wish.
    pub wish: Uuid,
    /// Which order.
    pub order_id: OrderId,
}

/// What the log tells of an order.
#[derive(Debug)]
pub struct Found {
    /// The wish that asked for it, if one did.
    pub wish: Option<Uuid>,
    /// Which order.
    pub order_id: OrderId,
    /// The events that it misses, by version; or why they are not known.
    pub events: Result<Vec<Record>, String>,
}

/// The projector's end.
#[derive(Debug)]
pub struct Healing {
    /// Orders to heal.
    pub asks: mpsc::Sender<Ask>,
    /// What the log told of them, and of orders that nobody asked about.
    pub found: mpsc::Receiver<Found>,
}

/// The one that asks the log.
#[derive(Debug)]
pub struct Healer {
    log: LogClient,
    store: Store,
    progress: Progress,
    patience: Duration,
    asks: mpsc::Receiver<Ask>,
    found: mpsc::Sender<Found>,
    /// The last order that was looked at: one that cannot be healed must not keep others from it.
    after: Option<OrderId>,
    /// What failed last.
    failure: Option<String>,
}

#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Healer {
    /// A healer and the projector's end of it.
    pub fn new(log: LogClient, store: Store, progress: Progress) -> (Self, Healing) {
        let (asking, asks) = mpsc::channel(QUEUE_MAX);
        let (found, finding) = mpsc::channel(QUEUE_MAX);
        let healer = Self { log, store, progress, patience: PATIENCE, asks, found, after: None, failure: None };
        (healer, Healing { asks: asking, found: finding })
    }

    /// With orders that wait so long before the log is asked.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Steps until `shutdown`.
    ///
    /// # Errors
    ///
    /// None: what fails is told, and tried again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.heal(&mut ticks) => shutdown.cancelled().await,
        }
        Ok(())
    }

    /// Heals until the projector is gone.
    async fn heal(&mut self, ticks: &mut Interval) {
        while !self.found.is_closed() {
            tokio::select! {
                biased;
                Some(ask) = self.asks.recv() => self.serve(ask).await,
                _at = ticks.tick() => self.look().await,
            }
        }
    }

    async fn serve(&mut self, Ask { wish, order_id }: Ask) {
        let events = self.missing(order_id).await.map_err(|failure| ErrorChain(&failure).to_string());
        self.hand_over(Found { wish: Some(wish), order_id, events }).await;
    }

    /// Looks for orders that have waited for long, a few at a time, and fetches what they miss.
    pub async fn look(&mut self) {
        if self.progress.is_standby() {
            return;
        }
        if let Err(failure) = self.look_on().await {
            let why = ErrorChain(&failure).to_string();
            metrics::counter!(HEAL_FAILURES).increment(1);
            if self.failure.as_ref() != Some(&why) {
                tracing::warn!(error = why, "orders that miss events cannot be healed now");
            }
            self.failure = Some(why);
        }
    }

    async fn look_on(&mut self) -> Result<(), Failure> {
        let patience = i64::try_from(self.patience.as_micros()).unwrap_or(i64::MAX);
        let until = Utc::now().timestamp_micros().saturating_sub(patience);
        let orders = self.store.holes(until, self.after, ORDERS_MAX).await?;
        // After the last one, from the first on again.
        self.after = orders.last().copied();
        for order_id in orders {
            let events = self.missing(order_id).await?;
            self.failure = None;
            if !events.is_empty() {
                self.hand_over(Found { wish: None, order_id, events: Ok(events) }).await;
            }
        }
        Ok(())
    }

    /// The events of an order before its last waiting one that are neither applied nor wait.
    async fn missing(&self, order_id: OrderId) -> Result<Vec<Record>, Failure> {
        let applied = self.store.order_version(order_id).await?.unwrap_or_default();
        let waiting = self.store.parked_of(order_id, applied.next(), WAITING_MAX).await?;
        let waiting = waiting.into_iter().filter(|event| event.discarded.is_none());
        let waiting: BTreeSet<Version> = waiting.map(|event| event.version).collect();
        let Some(last) = waiting.last().copied() else {
            return Ok(Vec::new());
        };
        let limit = last.0.saturating_sub(applied.0).clamp(1, EVENTS_MAX);
        let page = self.log.page(Some((order_id, applied)), limit).await?;
        let of_order = page.records.into_iter().take_while(|event| event.order_id == order_id);
        let missing = of_order.filter(|event| event.version < last && !waiting.contains(&event.version));
        Ok(missing.map(|event| event.record).collect())
    }

    async fn hand_over(&self, found: Found) {
        // Nobody takes it once the projector ends.
        drop(self.found.send(found).await);
    }
}
