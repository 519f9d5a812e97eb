//! Which reads may be made on a thread that serves.
//!
//! A read of a few pages that are in memory is over sooner than another thread would have begun with it. One that waits
//! for the disk would keep its thread from serving. Nobody knows beforehand, so: the last thread that does not read does
//! not begin to while another one is stuck, and after a slow read all others are made apart for a while.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// A quick read that takes longer waits for the disk, in microseconds; one that merely lost its core is back by then.
const SLOW_US: u64 = 20_000;
/// How long no thread that serves reads after a slow read, in microseconds.
const REST_US: u64 = 100_000;

/// The turns of the threads that serve.
#[derive(Debug)]
pub(super) struct Turns {
    threads: usize,
    since: Instant,
    reading: AtomicUsize,
    /// When the last read began, in microseconds.
    began_us: AtomicU64,
    /// Until when everything is read apart, in microseconds.
    resting_until_us: AtomicU64,
}

/// A thread that serves reads, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn<'a>(&'a Turns);

impl Turns {
    /// Turns of so many threads.
    pub(super) fn of(threads: usize) -> Self {
        Self {
            threads,
            since: Instant::now(),
            reading: AtomicUsize::new(0),
            began_us: AtomicU64::new(0),
            resting_until_us: AtomicU64::new(0),
        }
    }

    /// Microseconds since there are turns.
    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Whether this thread may read now.
    pub(super) fn enter(&self, now_us: u64) -> Option<Turn<'_>> {
        if self.threads < 2 || now_us < self.resting_until_us.load(Ordering::Relaxed) {
            return None;
        }
        // Counted before the look, and uncounted when it is refused: by the drop.
        let before = self.reading.fetch_add(1, Ordering::SeqCst);
        let turn = Turn(self);
        let stuck = now_us.saturating_sub(self.began_us.load(Ordering::SeqCst)) > SLOW_US;
        if before + 1 > self.threads || (before + 1 == self.threads && stuck) {
            return None;
        }
        self.began_us.fetch_max(now_us, Ordering::SeqCst);
        Some(turn)
    }

    /// A quick read is over.
    pub(super) fn took(&self, began_us: u64, ended_us: u64) {
        if ended_us.saturating_sub(began_us) > SLOW_US {
            self.resting_until_us.fetch_max(ended_us.saturating_add(REST_US), Ordering::Relaxed);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.reading.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_read_as_long_as_it_is_quick() {
        let turns = Turns::of(2);
        let _first = turns.enter(0).unwrap();
        let second = turns.enter(100).unwrap();
        assert!(turns.enter(200).is_none(), "there is no third thread");
        drop(second);
        assert!(turns.enter(300).is_some());
    }

    #[test]
    fn the_last_thread_does_not_read_while_another_is_stuck() {
        let turns = Turns::of(2);
        let stuck = turns.enter(0).unwrap();
        assert!(turns.enter(SLOW_US + 1).is_none());
        assert!(turns.enter(100 * SLOW_US).is_none());
        drop(stuck);
        assert!(turns.enter(100 * SLOW_US).is_some());
    }

    #[test]
    fn after_a_slow_read_all_are_made_apart_for_a_while() {
        let turns = Turns::of(8);
        turns.took(0, SLOW_US);
        assert!(turns.enter(SLOW_US).is_some());
        turns.took(0, SLOW_US + 1);
        assert!(turns.enter(SLOW_US + REST_US).is_none());
        assert!(turns.enter(SLOW_US + REST_US + 1).is_some());
    }

    #[test]
    fn a_lone_thread_never_reads() {
        assert!(Turns::of(1).enter(0).is_none());
    }
}
