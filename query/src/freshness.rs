//! Read-your-writes: a reader waits until the read model has the version it asks for.
//!
//! Level-triggered. An announcement only means "look now"; what counts is the row in the database. Where another node
//! projects, nobody in this process announces: then [`Freshness::watch`] looks for all readers together, with one
//! question however many wait.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::telemetry::ErrorChain;
use domain::{OrderId, Version};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::store;
use crate::store::Store;
use crate::store::answer::Prospect;

/// How long a waiting reader goes without looking by itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often [`Freshness::watch`] looks, while anybody waits.
const WATCH_INTERVAL: Duration = Duration::from_millis(50);

/// Who waits for which order. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Freshness {
    waiting: Arc<Mutex<HashMap<OrderId, watch::Sender<()>>>>,
    /// Counts announcements, for whoever wants them all.
    announced: Arc<watch::Sender<u64>>,
}

impl Freshness {
    /// Tells the readers that wait for these orders to look. Called after the commit.
    pub fn announce(&self, orders: impl IntoIterator<Item = OrderId>) {
        self.announced.send_modify(|count| *count = count.wrapping_add(1));
        let waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        for order_id in orders {
            if let Some(sender) = waiting.get(&order_id) {
                sender.send_replace(());
            }
        }
    }

    /// Tells everybody to look: the store answers from other tables now.
    pub fn announce_all(&self) {
        let everybody: Vec<OrderId> = self.waiting().keys().copied().collect();
        self.announce(everybody);
    }

    /// Looks for the readers that wait, as long as any do, and announces what has moved; until `shutdown`.
    ///
    /// # Errors
    ///
    /// None: what cannot be asked now is asked again, and a reader's wait is bounded.
    pub async fn watch(self, store: Store, shutdown: CancellationToken) -> Result<(), Infallible> {
        let mut seen = HashMap::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
            let orders: Vec<OrderId> = self.waiting().keys().copied().collect();
            if orders.is_empty() {
                seen.clear();
                continue;
            }
            match store.order_versions(&orders).await {
                Ok(versions) => {
                    let moved = versions.iter().filter(|(order_id, version)| seen.get(order_id) != Some(version));
                    self.announce(moved.map(|(order_id, _version)| *order_id));
                    seen = versions.into_iter().collect();
                }
                Err(error) => tracing::debug!(error = %ErrorChain(&error), "the versions cannot be asked for now"),
            }
        }
    }

    /// Changes with every announcement, of whichever orders.
    pub fn announcements(&self) -> watch::Receiver<u64> {
        self.announced.subscribe()
    }

    /// Waits until `store` has `order_id` at `version` or later, until that cannot come by waiting, or until `wait` has
    /// passed; tells how far the order is then.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn wait_for(
        &self,
        store: &Store,
        order_id: OrderId,
        version: Version,
        wait: Duration,
    ) -> Result<Prospect, store::Error> {
        let deadline = Instant::now() + wait;
        // Registered before the first look: what commits after the look is announced to us.
        let mut place = self.place(order_id);
        loop {
            let prospect = store.prospect(order_id, version).await?;
            let now = Instant::now();
            if prospect.is_settled(version) || now >= deadline {
                return Ok(prospect);
            }
            let until = deadline.min(now + LOOK_INTERVAL);
            // Told, or time to look: either way the row decides.
            drop(timeout_at(until, place.announced.changed()).await);
        }
    }

    fn place(&self, order_id: OrderId) -> Place {
        let announced = self.waiting().entry(order_id).or_insert_with(|| watch::channel(()).0).subscribe();
        Place { freshness: self.clone(), order_id, announced }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<OrderId, watch::Sender<()>>> {
        // The map is whole even when somebody panicked beside it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's place in the map; the last one to leave an order removes it.
struct Place {
    freshness: Freshness,
    order_id: OrderId,
    announced: watch::Receiver<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.freshness.waiting();
        // Our own receiver is still counted.
        if waiting.get(&self.order_id).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.order_id);
        }
    }
}
