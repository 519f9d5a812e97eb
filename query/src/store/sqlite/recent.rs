//! Answers that are known without asking the file, and never older than it: while this process holds the lock on the file
//! it is the only one that writes it, so it knows when an answer ends to be right. Without the lock nothing is known.
//!
//! - **Invariant:** once a commit has returned, no answer from before it is given.
//! - **Invariant:** what is kept has been read while nothing was being committed, and is forgotten before a commit that
//!   changes it.
//!
//! An order is kept until an event of it is applied; a list until anything is. Whoever asks for a list that somebody is
//! reading already gets what that one reads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::OrderId;
use tokio::sync::{Notify, OnceCell};
use tokio::time::timeout;

use crate::store::Error;
use crate::store::answer::{Detail, ListFilter, Listed, Page};

/// Orders are kept in so many parts, each with a lock of its own.
const SHARDS: usize = 16;
/// Bytes of documents in one part, in its younger and in its older half each.
const SHARD_BYTES_MAX: usize = 1024 * 1024;
/// What an order costs beside its document, about.
const ORDER_BYTES: usize = 128;
/// Lists that are kept between two commits.
const LISTS_MAX: usize = 256;
/// How long whoever asks for a list waits for a commit to end, so that one reads it for all; then each reads by itself.
const COMMIT_PATIENCE: Duration = Duration::from_millis(20);

/// What names a list.
pub(super) type Question = (ListFilter, Page, u32);

/// A list that is read, or being read.
pub(super) type Reading = Arc<OnceCell<Listed>>;

/// What is known.
#[derive(Debug)]
pub(super) struct Recent {
    /// Whether this process holds the lock on the file.
    owned: AtomicBool,
    /// Even between commits, odd during one; counts both their beginnings and their ends.
    epoch: AtomicU64,
    orders: [Mutex<Shard>; SHARDS],
    lists: Mutex<Lists>,
    /// Told when a commit has ended.
    ended: Notify,
}

/// When something was begun to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Epoch {
    fn is_calm(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

/// The younger half takes what is read; when it is full it becomes the older one, whose unread rest is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<OrderId, Detail>,
    old: HashMap<OrderId, Detail>,
    young_bytes: usize,
}

#[derive(Debug, Default)]
struct Lists {
    epoch: u64,
    read: HashMap<Question, Reading>,
}

/// Which orders a transaction changes.
#[derive(Debug, Default)]
pub(super) enum Touched {
    /// It has written what is not told here: forget all.
    #[default]
    Anything,
    /// These.
    Orders(Vec<OrderId>),
}

impl Default for Recent {
    fn default() -> Self {
        let orders = std::array::from_fn(|_shard| Mutex::default());
        Self {
            owned: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            orders,
            lists: Mutex::default(),
            ended: Notify::new(),
        }
    }
}

/// While it lives, this process owns the file.
#[derive(Debug)]
pub(super) struct Owning(Arc<Recent>);

impl Drop for Owning {
    fn drop(&mut self) {
        self.0.owned.store(false, Ordering::SeqCst);
    }
}

impl Recent {
    /// From now on this process owns the file. What was read before counts for nothing: others may have written since.
    pub(super) fn owned(self: &Arc<Self>) -> Owning {
        self.committing(&Touched::Anything).end();
        self.owned.store(true, Ordering::SeqCst);
        Owning(Arc::clone(self))
    }

    fn is_owned(&self) -> bool {
        self.owned.load(Ordering::SeqCst)
    }

    /// To be asked for before something is read that shall be kept.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::SeqCst))
    }

    /// An order, as it is now.
    pub(super) fn order(&self, id: OrderId) -> Option<Detail> {
        if self.is_owned() { self.shard(id).get(id) } else { None }
    }

    /// Keeps an order that was read since `epoch`, unless something was committed meanwhile.
    pub(super) fn keep(&self, id: OrderId, detail: &Detail, epoch: Epoch) {
        let mut shard = self.shard(id);
        // Under the lock: a commit that has begun meanwhile forgets this order after us, or has told us that it began.
        if self.is_owned() && epoch.is_calm() && self.epoch() == epoch && detail.waiting.is_none() {
            shard.put(id, detail.clone());
        }
    }

    /// Where a list is read, by us or by somebody before us; none when it must be read without others.
    pub(super) fn list(&self, question: Question) -> Option<Reading> {
        let mut lists = lock(&self.lists);
        let epoch = self.epoch();
        if !epoch.is_calm() || !self.is_owned() {
            return None;
        }
        if lists.epoch != epoch.0 {
            lists.read.clear();
            lists.epoch = epoch.0;
        }
        if lists.read.len() >= LISTS_MAX && !lists.read.contains_key(&question) {
            return None;
        }
        Some(Arc::clone(lists.read.entry(question).or_default()))
    }

    /// Waits until nothing is being committed, but not for long.
    async fn calm(&self) {
        let mut ended = std::pin::pin!(self.ended.notified());
        // Registered before the look: an end after it is told to us.
        ended.as_mut().enable();
        if !self.epoch().is_calm() {
            drop(timeout(COMMIT_PATIENCE, ended).await);
        }
    }

    /// Forgets what a commit changes, before it begins. There is one writer, so there is one commit at a time.
    pub(super) fn committing(self: &Arc<Self>, touched: &Touched) -> Committing {
        // A commit before this one whose end nobody waited for has left the number odd; it is over by now.
        let step = if self.epoch().is_calm() { 1 } else { 2 };
        self.epoch.fetch_add(step, Ordering::SeqCst);
        match touched {
            Touched::Anything => self.orders.iter().for_each(|shard| *lock(shard) = Shard::default()),
            Touched::Orders(orders) => orders.iter().for_each(|id| self.shard(*id).forget(*id)),
        }
        Committing(Arc::clone(self))
    }

    fn shard(&self, id: OrderId) -> MutexGuard<'_, Shard> {
        // The low bits of an id are random.
        lock(&self.orders[usize::from(id.0.as_bytes()[15]) % SHARDS])
    }
}

/// A commit that goes on. Dropped, it may go on still, and nothing is kept any more.
#[derive(Debug)]
#[must_use = "a commit ends"]
pub(super) struct Committing(Arc<Recent>);

impl Committing {
    /// The database has answered: what is read from now on is read after it.
    pub(super) fn end(self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        self.0.ended.notify_waiters();
    }
}

impl Shard {
    fn get(&mut self, id: OrderId) -> Option<Detail> {
        if let Some(detail) = self.young.get(&id) {
            return Some(detail.clone());
        }
        let detail = self.old.remove(&id)?;
        self.put(id, detail.clone());
        Some(detail)
    }

    fn put(&mut self, id: OrderId, detail: Detail) {
        self.young_bytes += detail.document.len() + ORDER_BYTES;
        self.young.insert(id, detail);
        if self.young_bytes > SHARD_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
    }

    fn forget(&mut self, id: OrderId) {
        self.young.remove(&id);
        self.old.remove(&id);
    }
}

/// What is kept is whole even when somebody panicked beside it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads a list, or waits for whoever reads it already.
pub(super) async fn read<F>(recent: &Recent, question: Question, read: F) -> Result<Listed, Error>
where
    F: Future<Output = Result<Listed, Error>>,
{
    recent.calm().await;
    match recent.list(question) {
        Some(reading) => reading.get_or_try_init(|| read).await.cloned(),
        None => read.await,
    }
}

#[cfg(test)]
mod tests {
    use domain::Version;
    use uuid::Uuid;

    use super::*;

    fn detail(version: u32) -> Detail {
        Detail { version: Version(version), document: "{}".into(), waiting: None }
    }

    fn id(n: u128) -> OrderId {
        OrderId(Uuid::from_u128(n))
    }

    fn question() -> Question {
        (ListFilter::default(), Page::default(), 50)
    }

    #[test]
    fn a_commit_forgets_what_it_changes_and_nothing_else() {
        let recent = Arc::new(Recent::default());
        recent.keep(id(1), &detail(1), recent.epoch());
        assert_eq!(recent.order(id(1)), None, "the file is not ours");
        let owning = recent.owned();
        for n in [1, 2] {
            recent.keep(id(n), &detail(1), recent.epoch());
        }
        recent.committing(&Touched::Orders(vec![id(1)])).end();
        assert_eq!(recent.order(id(1)), None);
        assert_eq!(recent.order(id(2)), Some(detail(1)));
        recent.committing(&Touched::Anything).end();
        assert_eq!(recent.order(id(2)), None);
        recent.keep(id(2), &detail(1), recent.epoch());
        drop(owning);
        assert_eq!(recent.order(id(2)), None);
        assert!(recent.list(question()).is_none());
        let _owning = recent.owned();
        assert_eq!(recent.order(id(2)), None, "others may have written meanwhile");
    }

    #[test]
    fn what_was_read_beside_a_commit_is_not_kept() {
        let recent = Arc::new(Recent::default());
        let _owning = recent.owned();
        let before = recent.epoch();
        let committing = recent.committing(&Touched::Orders(Vec::new()));
        let during = recent.epoch();
        recent.keep(id(1), &detail(1), before);
        recent.keep(id(1), &detail(1), during);
        assert!(recent.list(question()).is_none());
        committing.end();
        recent.keep(id(1), &detail(1), before);
        recent.keep(id(1), &detail(1), during);
        assert_eq!(recent.order(id(1)), None);
        recent.keep(id(1), &detail(1), recent.epoch());
        assert_eq!(recent.order(id(1)), Some(detail(1)));
    }

    #[test]
    fn a_commit_that_nobody_saw_end_is_taken_to_go_on() {
        let recent = Arc::new(Recent::default());
        let _owning = recent.owned();
        drop(recent.committing(&Touched::Anything));
        recent.keep(id(1), &detail(1), recent.epoch());
        assert_eq!(recent.order(id(1)), None);
        recent.committing(&Touched::Anything).end();
        recent.keep(id(1), &detail(1), recent.epoch());
        assert_eq!(recent.order(id(1)), Some(detail(1)));
    }

    #[test]
    fn a_list_is_shared_until_the_next_commit() {
        let recent = Arc::new(Recent::default());
        let _owning = recent.owned();
        let first = recent.list(question()).unwrap();
        assert!(Arc::ptr_eq(&first, &recent.list(question()).unwrap()));
        recent.committing(&Touched::Orders(Vec::new())).end();
        assert!(!Arc::ptr_eq(&first, &recent.list(question()).unwrap()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let recent = Arc::new(Recent::default());
        let _owning = recent.owned();
        let large = Detail { document: "x".repeat(SHARD_BYTES_MAX / 4).into(), ..detail(1) };
        for n in 0..100 {
            recent.keep(id(n * 256), &large, recent.epoch());
        }
        let kept = (0..100).filter(|n| recent.order(id(n * 256)).is_some()).count();
        assert!((1..=8).contains(&kept), "{kept}");
        let asked = (0..1_000).filter(|limit| recent.list((ListFilter::default(), Page::default(), *limit)).is_some());
        assert_eq!(asked.count(), LISTS_MAX);
    }
}
