//! How the projection is doing, for health, metrics and the API.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::checkpoint::Checkpoints;
use crate::generation::Revisions;

/// A projector that fails for this long makes the service not ready.
const FAILING_MAX: Duration = Duration::from_secs(30);

/// What the projector and the lag sampler tell, and everybody may read. Clones share it.
#[derive(Debug, Clone)]
pub struct Progress {
    state: Arc<Mutex<State>>,
    failing_max: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self::tolerating(FAILING_MAX)
    }
}

#[derive(Debug, Default)]
struct State {
    verified: bool,
    standby: bool,
    topic: Option<String>,
    next: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
    newest_event_micros: Option<i64>,
    failing: Option<Failing>,
    damage: Option<String>,
    revisions: Option<Revisions>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    reason: &'static str,
    why: String,
}

/// How far one partition is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionProgress {
    /// Which partition.
    pub partition: i32,
    /// The offset of the first record that is not applied.
    pub next_offset: i64,
    /// The offset after the last record, when last asked.
    pub end_offset: i64,
}

impl PartitionProgress {
    /// Events that are not applied.
    pub fn lag(&self) -> i64 {
        self.end_offset.saturating_sub(self.next_offset).max(0)
    }
}

impl Progress {
    /// A projector that fails for as long as `failing_max` fails persistently.
    pub fn tolerating(failing_max: Duration) -> Self {
        Self { state: Arc::default(), failing_max }
    }

    /// The topic was verified and is being read.
    pub fn reading(&self) {
        let mut state = self.state();
        state.verified = true;
        state.standby = false;
        state.topic = None;
    }

    /// Another node projects: whether the topic can be read is its to know.
    pub fn stands_by(&self) {
        let mut state = self.state();
        state.standby = true;
        state.topic = None;
        state.failing = None;
        // What this node applied last says nothing any more about how far the projection is.
        state.newest_event_micros = None;
    }

    /// Whether another node projects.
    pub fn is_standby(&self) -> bool {
        self.state().standby
    }

    /// How far the partitions are applied, by whichever node.
    pub fn applied(&self, checkpoints: &Checkpoints) {
        self.state().next = next_offsets(checkpoints);
    }

    /// The topic cannot be read. True when that is news.
    pub fn not_readable(&self, why: String) -> bool {
        let mut state = self.state();
        state.standby = false;
        let news = state.topic.as_ref() != Some(&why);
        state.topic = Some(why);
        news
    }

    /// Why the topic is not being read; none while it is.
    pub fn topic_problem(&self) -> Option<String> {
        self.state().topic.clone()
    }

    /// Whether the topic was verified at least once.
    pub fn was_verified(&self) -> bool {
        self.state().verified
    }

    /// A step succeeded; `newest_event_micros` is the time of the newest event it applied.
    pub fn stepped(&self, checkpoints: &Checkpoints, newest_event_micros: Option<i64>) {
        let mut state = self.state();
        state.failing = None;
        state.next = next_offsets(checkpoints);
        state.newest_event_micros = state.newest_event_micros.max(newest_event_micros);
    }

    /// A step failed, for a reason of a stable name.
    pub fn failed(&self, reason: &'static str, why: String) {
        let mut state = self.state();
        let since = state.failing.as_ref().map_or_else(Instant::now, |failing| failing.since);
        state.failing = Some(Failing { since, reason, why });
    }

    /// Why steps fail, once they have failed for long; for operators.
    pub fn persistent_failure(&self) -> Option<String> {
        self.failing_for_long(|failing| failing.why.clone())
    }

    /// The stable name of why steps fail, once they have failed for long; for clients.
    pub fn persistent_reason(&self) -> Option<&'static str> {
        self.failing_for_long(|failing| failing.reason)
    }

    fn failing_for_long<T>(&self, tell: impl FnOnce(&Failing) -> T) -> Option<T> {
        let state = self.state();
        state.failing.as_ref().filter(|failing| failing.since.elapsed() >= self.failing_max).map(tell)
    }

    /// What fills the tables that are served.
    pub fn filled_by(&self, revisions: Revisions) {
        self.state().revisions = Some(revisions);
    }

    /// The tables that are served are about to be others: what either of them lacks is not answered until then.
    pub fn moves_to(&self, next: &Revisions) {
        let mut state = self.state();
        state.revisions = Some(state.revisions.as_ref().map_or_else(|| next.clone(), |now| now.both(next)));
    }

    /// Whether the tables that are served have this projection; a new one is built first.
    pub fn has(&self, projection: &str) -> bool {
        self.state().revisions.as_ref().is_none_or(|revisions| revisions.has(projection))
    }

    /// The file is damaged.
    pub fn damaged(&self, what: String) {
        self.state().damage = Some(what);
    }

    /// What is damaged.
    pub fn damage(&self) -> Option<String> {
        self.state().damage.clone()
    }

    /// Where the partitions end, by partition.
    pub fn ends(&self, ends: &[(i64, i64)]) {
        let mut state = self.state();
        state.ends = (0..).zip(ends.iter().map(|(_low, high)| *high)).collect();
    }

    /// How far each partition is applied, as far as its end is known.
    pub fn partitions(&self) -> Vec<PartitionProgress> {
        let state = self.state();
        let progress = |(&partition, &end_offset): (&i32, &i64)| {
            let next_offset = state.next.get(&partition).copied().unwrap_or(0);
            PartitionProgress { partition, next_offset, end_offset }
        };
        state.ends.iter().map(progress).collect()
    }

    /// When the newest applied event happened, in microseconds.
    pub fn newest_event_micros(&self) -> Option<i64> {
        self.state().newest_event_micros
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every field is whole on its own.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn next_offsets(checkpoints: &Checkpoints) -> BTreeMap<i32, i64> {
    checkpoints.partitions.iter().map(|known| (known.partition, known.next_offset())).collect()
}
