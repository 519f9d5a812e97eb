//! From the answer of a command to its sight in the query service.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::Run;
use super::send::{Accepted, Target};

/// At most this many orders are watched at once, and one is picked this often: watching is load, too.
const WATCHED_MAX: u32 = 32;
const PICK_EVERY: Duration = Duration::from_millis(20);
/// How often a watched order is read; the figures cannot be finer than this and a read.
const READ_EVERY: Duration = Duration::from_millis(2);
/// When watching one is given up.
const VISIBLE_WITHIN: Duration = Duration::from_secs(10);

/// Watches a sample of the accepted commands.
#[derive(Debug)]
pub(super) struct Watch {
    target: Target,
    slots: Arc<Semaphore>,
    last_pick: Mutex<Option<Instant>>,
}

impl Watch {
    pub(super) fn new(target: &Target) -> Self {
        let slots = Arc::new(Semaphore::new(WATCHED_MAX as usize));
        Self { target: target.clone(), slots, last_pick: Mutex::new(None) }
    }

    /// Watches this command if it is time for one more. Its clock starts now, when its commit is known.
    pub(super) fn consider(&self, run: &Arc<Run>, accepted: &Accepted) {
        let now = Instant::now();
        {
            let mut last = self.last_pick.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now.duration_since(last) < PICK_EVERY) {
                return;
            }
            *last = Some(now);
        }
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return };
        let (run, target, accepted) = (run.clone(), self.target.clone(), accepted.clone());
        tokio::spawn(async move {
            match watch(&target, &accepted, now).await {
                Ok(Some(took)) => run.tally.visible_after(took),
                Ok(None) => run.tally.never_visible(),
                Err(cause) => run.tally.failed(format!("watch: {cause}")),
            }
            drop(slot);
        });
    }

    /// Waits for those that are still being watched.
    pub(super) async fn finish(&self) {
        // The semaphore is never closed, and every watcher ends by itself.
        self.slots.acquire_many(WATCHED_MAX).await.map(drop).ok();
    }
}

async fn watch(target: &Target, accepted: &Accepted, since: Instant) -> Result<Option<Duration>, String> {
    while since.elapsed() < VISIBLE_WITHIN {
        if target.visible_version(&accepted.order_id).await?.is_some_and(|version| version >= accepted.version) {
            return Ok(Some(since.elapsed()));
        }
        sleep(READ_EVERY).await;
    }
    Ok(None)
}
