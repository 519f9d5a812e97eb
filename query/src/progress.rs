//! How the projection is doing, for health, metrics and the API.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::Utc;

use crate::checkpoint::Checkpoints;
use crate::generation::Revisions;
use crate::reader::Trouble;

/// A projector that fails for this long makes the service not ready.
const FAILING_MAX: Duration = Duration::from_secs(30);
/// How long a value counts as known after it was last asked for. Later it may be anything.
pub const KNOWN_FOR: Duration = Duration::from_secs(6);
/// Ends that are kept until they are reached. A reader that is further behind knows since when from the oldest.
const UNREACHED_MAX: usize = 1_024;

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

#[derive(Debug)]
struct State {
    started: Instant,
    verified: bool,
    standby: bool,
    trouble: Option<(Trouble, Instant)>,
    /// When the brokers last gave an answer or records to the projector.
    answered: Option<Instant>,
    next: BTreeMap<i32, i64>,
    /// When `next` was last known.
    applied: Option<Instant>,
    ends: BTreeMap<i32, i64>,
    /// When `ends` were last known.
    ended: Option<Instant>,
    /// Ends that are not reached yet, the oldest first, and when they were seen.
    unreached: VecDeque<(Instant, BTreeMap<i32, i64>)>,
    newest_event_micros: Option<i64>,
    failing: Option<Failing>,
    damage: Option<String>,
    revisions: Option<Revisions>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            verified: false,
            standby: false,
            trouble: None,
            answered: None,
            next: BTreeMap::new(),
            applied: None,
            ends: BTreeMap::new(),
            ended: None,
            unreached: VecDeque::new(),
            newest_event_micros: None,
            failing: None,
            damage: None,
            revisions: None,
        }
    }
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
    /// The offset after the last record, when last asked; none before the first answer.
    pub end_offset: Option<i64>,
    /// Records that are not applied; none while that is not known.
    pub lag: Option<i64>,
}

/// How old what is known is, and what it comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Knowledge {
    /// Since when no answer of the brokers reached the projector. Before the first one, since the start.
    pub read_age: Duration,
    /// How old the known ends of the partitions are. Before the first answer, since the start.
    pub ends_age: Duration,
    /// Records that are not applied, over all partitions; none while that is not known.
    pub lag: Option<i64>,
    /// How long the oldest record that is not applied has waited at least; none while that is not known.
    pub behind: Option<Duration>,
}

impl Progress {
    /// A projector that fails for as long as `failing_max` fails persistently.
    pub fn tolerating(failing_max: Duration) -> Self {
        Self { state: Arc::default(), failing_max }
    }

    /// The topic was verified and is being read.
    pub fn verified(&self) {
        let mut state = self.state();
        state.verified = true;
        state.standby = false;
    }

    /// The brokers have answered the projector.
    pub fn answered(&self) {
        self.state().answered = Some(Instant::now());
    }

    /// The topic can be read. Tells what kept it from being read until now, if anything did, and for how long.
    pub fn reading(&self) -> Option<(Trouble, Duration)> {
        self.state().trouble.take().map(|(trouble, since)| (trouble, since.elapsed()))
    }

    /// Another node projects: whether the topic can be read is its to know.
    pub fn stands_by(&self) {
        let mut state = self.state();
        if !state.standby {
            // What this node applied last says nothing any more about how far the projection is.
            state.newest_event_micros = None;
            state.applied = None;
        }
        state.standby = true;
        state.trouble = None;
        state.answered = None;
        state.failing = None;
    }

    /// Whether another node projects.
    pub fn is_standby(&self) -> bool {
        self.state().standby
    }

    /// How far the partitions are applied, by whichever node.
    pub fn applied(&self, checkpoints: &Checkpoints) {
        self.state().reached(next_offsets(checkpoints));
    }

    /// The positions of a reader that has nothing left to apply: control records lie before them, which no checkpoint shows.
    pub fn passed(&self, positions: &[(i32, i64)]) {
        if positions.is_empty() {
            return;
        }
        let mut next = self.state().next.clone();
        for (partition, position) in positions {
            let known = next.entry(*partition).or_insert(*position);
            *known = (*known).max(*position);
        }
        self.state().reached(next);
    }

    /// The topic, or a part of it, cannot be read. Tells how long that has lasted.
    pub fn not_readable(&self, trouble: Trouble) -> Duration {
        let mut state = self.state();
        state.standby = false;
        let since = match &state.trouble {
            Some((known, since)) if known.kind == trouble.kind => *since,
            _ => Instant::now(),
        };
        state.trouble = Some((trouble, since));
        since.elapsed()
    }

    /// Why the topic, or a part of it, is not being read; none while it is.
    pub fn topic_problem(&self) -> Option<String> {
        self.state().trouble.as_ref().map(|(trouble, _since)| trouble.why.clone())
    }

    /// What keeps the topic, or a part of it, from being read; none while nothing does.
    pub fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.as_ref().map(|(trouble, _since)| trouble.clone())
    }

    /// Whether the topic was verified at least once.
    pub fn was_verified(&self) -> bool {
        self.state().verified
    }

    /// A step succeeded; `newest_event_micros` is the time of the newest event it applied.
    pub fn stepped(&self, checkpoints: &Checkpoints, newest_event_micros: Option<i64>) {
        // The time is from another clock: an event from the future must not hide all that follow.
        let newest = newest_event_micros.map(|newest| newest.min(Utc::now().timestamp_micros()));
        let mut state = self.state();
        state.failing = None;
        state.reached(next_offsets(checkpoints));
        state.newest_event_micros = state.newest_event_micros.max(newest);
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
        let now = Instant::now();
        state.ends = (0..).zip(ends.iter().map(|(_low, high)| *high)).collect();
        state.ended = Some(now);
        let ends = state.ends.clone();
        if !state.has_reached(&ends) && state.unreached.len() < UNREACHED_MAX {
            state.unreached.push_back((now, ends));
        }
    }

    /// Where the partitions end, while that is known.
    pub fn known_ends(&self) -> Option<BTreeMap<i32, i64>> {
        let state = self.state();
        state.ended.filter(|at| at.elapsed() <= KNOWN_FOR).map(|_at| state.ends.clone())
    }

    /// How far each partition is applied, as far as anything is known of it.
    pub fn partitions(&self) -> Vec<PartitionProgress> {
        let state = self.state();
        let knows = state.knows_the_lag();
        let partitions: BTreeSet<i32> = state.ends.keys().chain(state.next.keys()).copied().collect();
        let progress = |partition: i32| {
            let next_offset = state.next.get(&partition).copied().unwrap_or(0);
            let end_offset = state.ends.get(&partition).copied();
            let lag = end_offset.filter(|_end| knows).map(|end| end.saturating_sub(next_offset).max(0));
            PartitionProgress { partition, next_offset, end_offset, lag }
        };
        partitions.into_iter().map(progress).collect()
    }

    /// How old what is known is, and what it comes to.
    pub fn knowledge(&self) -> Knowledge {
        let lag = self.partitions().iter().map(|known| known.lag).sum::<Option<i64>>();
        let state = self.state();
        let age = |at: Option<Instant>| at.unwrap_or(state.started).elapsed();
        let knows = state.knows_the_lag();
        let behind = state.unreached.front().map_or(Duration::ZERO, |(seen, _ends)| seen.elapsed());
        Knowledge {
            read_age: age(state.answered),
            ends_age: age(state.ended),
            lag: lag.filter(|_lag| knows),
            behind: Some(behind).filter(|_behind| knows),
        }
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

impl State {
    /// The lag is the difference of two values, and known while both are fresh. What this node applies itself it knows.
    fn knows_the_lag(&self) -> bool {
        let fresh = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() <= KNOWN_FOR);
        fresh(self.ended) && if self.standby { fresh(self.applied) } else { self.applied.is_some() }
    }

    fn reached(&mut self, next: BTreeMap<i32, i64>) {
        // A control record behind the last record is passed once, and no checkpoint says so again.
        let passed = |(partition, next): (i32, i64)| {
            let last = self.next.get(&partition).copied().unwrap_or(next);
            let end = self.ends.get(&partition).copied().unwrap_or(next);
            (partition, if last <= end { next.max(last) } else { next })
        };
        self.next = next.into_iter().map(passed).collect();
        self.applied = Some(Instant::now());
        while let Some((_seen, ends)) = self.unreached.front() {
            if !self.has_reached(ends) {
                return;
            }
            self.unreached.pop_front();
        }
    }

    fn has_reached(&self, ends: &BTreeMap<i32, i64>) -> bool {
        ends.iter().all(|(partition, end)| self.next.get(partition).copied().unwrap_or(0) >= *end)
    }
}

fn next_offsets(checkpoints: &Checkpoints) -> BTreeMap<i32, i64> {
    checkpoints.partitions.iter().map(|known| (known.partition, known.next_offset())).collect()
}
