//! One stream: looks into the store, tells what is new, waits, and looks again.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use chassis::telemetry::ErrorChain;
use domain::order::Status;
use domain::{CustomerId, OrderId};
use thiserror::Error;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::StreamLimits;
use super::place::{Cursor, Place};
use crate::freshness::Freshness;
use crate::metrics::{STREAM_RESETS, STREAMS_CUT};
use crate::progress::Progress;
use crate::store::answer::Change;
use crate::store::{self, Store};

/// Changes of a partition that are read at once.
const PAGE_CHANGES_MAX: u32 = 128;
/// Events that are written and not yet taken by the client.
pub const BUFFER_EVENTS_MAX: usize = 32;
/// The shortest time between two looks: what comes closer together is read together.
const LOOK_INTERVAL_MIN: Duration = Duration::from_millis(25);
/// How often to look for what nobody announced: another node may write this store. The streams of a node share a look.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long a stream is silent at most.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a client rests before it resumes, in milliseconds.
const RETRY_MS: u32 = 3_000;

/// Which changes a client wants.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// With the order in this status after the change.
    pub status: Option<Status>,
    /// Of this customer's orders.
    pub customer_id: Option<CustomerId>,
    /// Of this order.
    pub order_id: Option<OrderId>,
    /// Of this type.
    pub event_type: Option<String>,
}

impl Filter {
    fn wants(&self, change: &Change) -> bool {
        self.status.is_none_or(|status| status == change.status)
            && self.customer_id.as_ref().is_none_or(|customer| *customer == change.customer_id)
            && self.order_id.is_none_or(|order| order == change.order_id)
            && self.event_type.as_ref().is_none_or(|name| *name == change.event_type)
    }
}

/// What the streams of a process share. Clones share it.
#[derive(Debug, Clone)]
pub struct Feed {
    store: Store,
    freshness: Freshness,
    progress: Progress,
    limits: StreamLimits,
    shutdown: CancellationToken,
    /// The last look at the store's newest change, and when it was.
    head: Arc<Mutex<Option<Head>>>,
}

/// The store's newest change, and when it was asked for.
type Head = (Instant, Option<i64>);

/// What a look found.
enum Look {
    /// These are next; more of them wait when it is full.
    Next { changes: Vec<Change>, full: bool },
    /// This node has not applied what the client has.
    Behind,
    /// The client cannot go on from where it is.
    Lost(&'static str),
}

/// Why a stream ended.
#[derive(Debug, Error)]
enum Ended {
    #[error("the client took nothing for too long")]
    Stalled,
    #[error("the client left")]
    Left,
    #[error("this node did not reach the client's place in time")]
    Behind,
    #[error("the read model cannot be asked")]
    Store(#[from] store::Error),
}

impl Feed {
    /// A feed from this store that ends with `shutdown`.
    pub fn new(
        store: Store,
        freshness: Freshness,
        progress: Progress,
        limits: StreamLimits,
        shutdown: CancellationToken,
    ) -> Self {
        Self { store, freshness, progress, limits, shutdown, head: Arc::default() }
    }

    /// Behind everything that is applied now.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn now(&self) -> Result<Cursor, store::Error> {
        // What is not kept is applied, though nothing else may show it.
        let mut cursor = Cursor { next: self.store.kept().await?, last: None };
        let mut newest = None;
        // The checkpoints first: a change that comes meanwhile is either passed as the last one, or told.
        for checkpoint in self.store.checkpoints().await?.partitions {
            let applied = Place::of_record(checkpoint.last.offset);
            let last = self.store.last_change(checkpoint.partition).await?;
            let next = last.map_or(applied, |last| last.at.place.after().max(applied));
            let next = next.max(cursor.next_of(checkpoint.partition));
            cursor.next.insert(checkpoint.partition, next);
            if let Some(last) = last
                && newest.is_none_or(|newest| newest < last.seq)
            {
                newest = Some(last.seq);
                cursor.last = Some(last.at);
            }
        }
        Ok(cursor)
    }

    /// Tells `out` everything from `cursor` on that `filter` wants, until the client leaves, is too slow, or the
    /// process drains.
    pub async fn tell(self, filter: Filter, cursor: Cursor, out: mpsc::Sender<String>) {
        let (shutdown, taker) = (self.shutdown.clone(), out.clone());
        let mut stream = Stream {
            feed: self,
            filter,
            cursor,
            out,
            told_at: Instant::now(),
            head: None,
            behind: None,
            placed: false,
        };
        let ended = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            () = taker.closed() => Ended::Left,
            ended = stream.run() => match ended {
                Ok(never) => match never {},
                Err(ended) => ended,
            },
        };
        if matches!(ended, Ended::Stalled) {
            metrics::counter!(STREAMS_CUT).increment(1);
        }
        tracing::debug!(reason = %ErrorChain(&ended), "a stream ended");
    }

    async fn look(&self, cursor: &Cursor) -> Result<Look, store::Error> {
        let checkpoints = self.store.checkpoints().await?;
        let applied: BTreeMap<i32, i64> =
            checkpoints.partitions.iter().map(|known| (known.partition, known.last.offset)).collect();
        let last = cursor.last.map(|last| (last.partition, last.place));
        let mut seen = cursor.next.iter().map(|(partition, place)| (*partition, *place)).chain(last);
        if let Some(look) = self.unknown_partition(&applied, seen.clone().map(|(partition, _place)| partition)) {
            return Ok(look);
        }
        if seen.any(|(partition, place)| place.offset > applied.get(&partition).copied().unwrap_or(-1)) {
            return Ok(Look::Behind);
        }
        // A partition of which nothing is applied has no changes: what is asked grows with the topic, not with the id.
        let from = applied.keys().map(|partition| (*partition, cursor.next_of(*partition)));
        let changes = self.store.changes(&from.collect(), PAGE_CHANGES_MAX).await?;
        // Only now: what was removed or replaced before the changes were read shows here.
        let kept = self.store.kept().await?;
        if kept.iter().any(|(partition, from)| cursor.next_of(*partition) < *from) {
            return Ok(Look::Lost("what came next is not kept any more"));
        }
        if let Some(last) = cursor.last
            && self.store.event_at(last.partition, last.place).await? != Some(last.event_id)
        {
            return Ok(Look::Lost("the last event is not where it was"));
        }
        let (changes, full) = settled(changes);
        Ok(Look::Next { changes, full })
    }

    /// What a client is told whose id names a partition of which nothing is applied, and that the topic does not have. A
    /// reader that has not looked at the topic yet cannot know.
    fn unknown_partition(&self, applied: &BTreeMap<i32, i64>, mut named: impl Iterator<Item = i32>) -> Option<Look> {
        let topic: BTreeSet<i32> = self.progress.partitions().iter().map(|known| known.partition).collect();
        if named.all(|partition| applied.contains_key(&partition) || topic.contains(&partition)) {
            return None;
        }
        let knows_all = !topic.is_empty() || self.progress.is_standby();
        Some(if knows_all { Look::Lost("the id names a partition that the topic does not have") } else { Look::Behind })
    }

    /// Whether the topic is known to end before what the client has: then waiting is in vain.
    fn topic_ends_before(&self, cursor: &Cursor) -> bool {
        // An end that is not known now may be anywhere.
        let Some(ends) = self.progress.known_ends() else { return false };
        let beyond = |(partition, place): (&i32, &Place)| ends.get(partition).is_none_or(|end| *end <= place.offset);
        !ends.is_empty() && cursor.next.iter().any(beyond)
    }

    async fn head(&self) -> Result<Option<i64>, store::Error> {
        let mut looked = self.head.lock().await;
        if let Some((at, head)) = *looked
            && at.elapsed() < POLL_INTERVAL
        {
            return Ok(head);
        }
        let head = self.store.head().await?;
        *looked = Some((Instant::now(), head));
        Ok(head)
    }
}

/// The changes that nothing can come before, and whether there are more.
///
/// Of each partition only so many were read; one that was applied after the last of those may have others before it.
fn settled(mut changes: Vec<Change>) -> (Vec<Change>, bool) {
    let mut read: BTreeMap<i32, (u32, i64)> = BTreeMap::new();
    for change in &changes {
        let (count, last) = read.entry(change.at.partition).or_default();
        *count += 1;
        *last = change.seq;
    }
    let full = read.values().filter(|(count, _last)| *count >= PAGE_CHANGES_MAX).map(|(_count, last)| *last).min();
    if let Some(bound) = full {
        changes.retain(|change| change.seq <= bound);
    }
    (changes, full.is_some())
}

struct Stream {
    feed: Feed,
    filter: Filter,
    cursor: Cursor,
    out: mpsc::Sender<String>,
    told_at: Instant,
    /// The newest change of the store before the last look.
    head: Option<i64>,
    /// Since when this node is behind the client.
    behind: Option<Instant>,
    /// Whether the client was told its place.
    placed: bool,
}

impl Stream {
    async fn run(&mut self) -> Result<Infallible, Ended> {
        let mut announcements = self.feed.freshness.announcements();
        self.send(format!("retry: {RETRY_MS}\n\n")).await?;
        loop {
            announcements.mark_unchanged();
            self.head = self.feed.head().await?;
            let looked_at = Instant::now();
            match self.feed.look(&self.cursor).await? {
                Look::Next { changes, full } => {
                    self.behind = None;
                    self.tell_place().await?;
                    self.pass(changes).await?;
                    if full {
                        continue;
                    }
                }
                Look::Behind => self.catch_up().await?,
                Look::Lost(reason) => self.reset(reason).await?,
            }
            sleep_until(looked_at + LOOK_INTERVAL_MIN).await;
            self.wait(&mut announcements).await?;
        }
    }

    /// Tells the id before the first event: a client that is cut before it misses none. What a client claims to have is
    /// told back only once it is known to be a place.
    async fn tell_place(&mut self) -> Result<(), Ended> {
        if !std::mem::replace(&mut self.placed, true) {
            self.send(format!("id: {}\n\n", self.cursor)).await?;
        }
        Ok(())
    }

    async fn pass(&mut self, changes: Vec<Change>) -> Result<(), Ended> {
        for change in changes {
            if change.at.place < self.cursor.next_of(change.at.partition) {
                continue;
            }
            self.cursor.pass(change.at);
            if self.filter.wants(&change) {
                self.send(event(&change, &self.cursor)).await?;
            }
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), Ended> {
        let since = *self.behind.get_or_insert_with(Instant::now);
        if since.elapsed() < self.feed.limits.behind_max {
            return Ok(());
        }
        if self.feed.topic_ends_before(&self.cursor) {
            return self.reset("the topic ends before the last event").await;
        }
        Err(Ended::Behind)
    }

    async fn reset(&mut self, reason: &str) -> Result<(), Ended> {
        metrics::counter!(STREAM_RESETS).increment(1);
        self.behind = None;
        self.placed = true;
        self.cursor = self.feed.now().await?;
        let data = serde_json::json!({ "reason": reason });
        self.send(format!("event: reset\nid: {}\ndata: {data}\n\n", self.cursor)).await
    }

    /// Waits until it is time to look.
    async fn wait(&mut self, announcements: &mut watch::Receiver<u64>) -> Result<(), Ended> {
        loop {
            tokio::select! {
                // The sender lives in our own feed.
                _changed = announcements.changed() => return Ok(()),
                () = sleep(POLL_INTERVAL) => {}
            }
            if self.told_at.elapsed() >= KEEP_ALIVE {
                // Changes that the client does not want move it on as well, lest its place be forgotten.
                let id = if self.placed { format!("id: {}\n", self.cursor) } else { String::new() };
                return self.send(format!(": still here\n{id}\n")).await;
            }
            if self.behind.is_some() || self.feed.head().await? != self.head {
                return Ok(());
            }
        }
    }

    async fn send(&mut self, text: String) -> Result<(), Ended> {
        use mpsc::error::SendTimeoutError;
        self.told_at = Instant::now();
        self.out.send_timeout(text, self.feed.limits.stall_max).await.map_err(|error| match error {
            SendTimeoutError::Timeout(_) => Ended::Stalled,
            SendTimeoutError::Closed(_) => Ended::Left,
        })
    }
}

/// A change on the wire. The message is told as it was published; a line of it becomes a line of data.
fn event(change: &Change, cursor: &Cursor) -> String {
    let Change { at, order_id, version, status, event_type, message, .. } = change;
    let (partition, Place { offset, n }, status) = (at.partition, at.place, status.as_str());
    let message = message.replace(['\r', '\n'], "\ndata: ");
    format!(
        "event: {event_type}\nid: {cursor}\ndata: {{\"partition\":{partition},\"offset\":{offset},\"n\":{n},\
         \"event_id\":\"{}\",\"order_id\":\"{order_id}\",\"version\":{version},\"status\":\"{status}\",\
         \"data\":{message}}}\n\n",
        at.event_id
    )
}
