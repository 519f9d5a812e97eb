//! What happens on one connection, and how long it may go on without.
//!
//! hyper times the head of an HTTP/1.1 request and nothing else. A peer that answers pings and opens no window would
//! keep an HTTP/2 connection, and the answers on it, for as long as it likes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long a connection may go on without what it is for.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Patience {
    /// To the whole head of a request, once its first byte is here. To the first request on a new connection.
    pub(in super::super) head: Duration,
    /// To the next request.
    pub(in super::super) idle: Duration,
    /// To a connection's end, once it was announced and nothing runs on it.
    pub(in super::super) farewell: Duration,
    /// To the next piece of an answer that the peer takes.
    pub(in super::super) stall: Duration,
    /// The most bytes of answers that one connection holds.
    pub(in super::super) answer_bytes_max: usize,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Overdue {
    Head,
    Idle,
    Answer,
}

/// What happens on one connection; clones tell of the same one.
#[derive(Debug, Clone)]
pub(super) struct Activity {
    patience: Patience,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    is_http2: bool,
    leaving: bool,
    /// Since when a head is on its way.
    head_since: Option<Instant>,
    /// Since when there is no request.
    idle_since: Instant,
    /// Requests that are not answered, or whose answer is not on its way as a whole.
    requests: usize,
    /// Pieces of answers that wait for the peer to take them.
    pieces: usize,
    /// When a piece last left, or the first one of these came.
    moved_at: Instant,
    /// Bytes of the answers that are held for the peer.
    bytes: usize,
}

impl Activity {
    /// Of a connection that begins now.
    pub(super) fn new(patience: Patience) -> Self {
        let now = Instant::now();
        let state = State {
            is_http2: false,
            leaving: false,
            head_since: Some(now),
            idle_since: now,
            requests: 0,
            pieces: 0,
            moved_at: now,
            bytes: 0,
        };
        Self { patience, state: Arc::new(Mutex::new(state)) }
    }

    /// Bytes came. Outside of a request they begin a head, except on HTTP/2, which has frames of other kinds.
    pub(super) fn bytes_came(&self) {
        let mut state = self.state();
        if state.requests == 0 && !state.is_http2 && state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// The head of a request is here.
    pub(super) fn request_began(&self, is_http2: bool) -> Running {
        let mut state = self.state();
        state.is_http2 = is_http2;
        state.head_since = None;
        state.requests += 1;
        drop(state);
        Running { activity: self.clone() }
    }

    /// The connection's end was announced to the peer.
    pub(super) fn leave(&self) {
        let mut state = self.state();
        state.leaving = true;
        state.idle_since = state.idle_since.max(Instant::now());
    }

    /// When to look again.
    ///
    /// # Errors
    ///
    /// What the peer has not done in time.
    pub(super) fn look(&self, now: Instant) -> Result<Instant, Overdue> {
        let Patience { head, idle, farewell, stall, .. } = self.patience;
        let state = self.state();
        let idle = if state.leaving { farewell } else { idle };
        // What begins after this look is due no earlier than the shortest of these.
        let mut next = now + head.min(idle).min(stall);
        let is_idle = state.requests == 0 && state.pieces == 0;
        let waits = [
            (state.head_since, head, Overdue::Head),
            (is_idle.then_some(state.idle_since), idle, Overdue::Idle),
            ((state.pieces > 0).then_some(state.moved_at), stall, Overdue::Answer),
        ];
        for (since, patience, overdue) in waits {
            let Some(since) = since else { continue };
            if now >= since + patience {
                return Err(overdue);
            }
            next = next.min(since + patience);
        }
        Ok(next)
    }

    /// Makes room for an answer of so many bytes, if there is some. An answer alone always has it.
    pub(super) fn try_hold(&self, bytes: usize) -> bool {
        let mut state = self.state();
        let fits = state.bytes == 0 || state.bytes.saturating_add(bytes) <= self.patience.answer_bytes_max;
        if fits {
            state.bytes += bytes;
        }
        fits
    }

    /// Holds so many bytes, whether there is room or not.
    pub(super) fn hold(&self, bytes: usize) {
        self.state().bytes += bytes;
    }

    pub(super) fn release(&self, bytes: usize) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(bytes);
    }

    /// A piece of an answer waits for the peer.
    pub(super) fn piece_waits(&self) {
        let mut state = self.state();
        if state.pieces == 0 {
            state.moved_at = Instant::now();
        }
        state.pieces += 1;
    }

    /// The peer took a piece of so many bytes, or never will.
    pub(super) fn piece_left(&self, bytes: usize) {
        let mut state = self.state();
        state.pieces = state.pieces.saturating_sub(1);
        state.bytes = state.bytes.saturating_sub(bytes);
        state.moved_at = Instant::now();
        state.idle_since = state.moved_at;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, until its whole answer is on its way.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) activity: Activity,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        state.requests = state.requests.saturating_sub(1);
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const PATIENCE: Patience = Patience {
        head: S,
        idle: Duration::from_secs(60),
        farewell: S,
        stall: Duration::from_secs(8),
        answer_bytes_max: 9,
    };

    #[tokio::test(start_paused = true)]
    async fn each_wait_has_its_own_end() {
        let activity = Activity::new(PATIENCE);
        let start = Instant::now();
        assert_eq!(activity.look(start), Ok(start + S));
        assert_eq!(activity.look(start + S), Err(Overdue::Head), "no first request");
        let request = activity.request_began(false);
        assert!(activity.look(start + 600 * S).is_ok(), "a handler takes as long as it takes");
        activity.piece_waits();
        assert_eq!(activity.look(start + 8 * S), Err(Overdue::Answer));
        tokio::time::advance(5 * S).await;
        activity.piece_left(0);
        activity.piece_waits();
        assert!(activity.look(start + 8 * S).is_ok(), "the peer takes what it asked for");
        activity.piece_left(0);
        drop(request);
        assert_eq!(activity.look(start + 65 * S), Err(Overdue::Idle));
        activity.bytes_came();
        assert_eq!(activity.look(start + 6 * S), Err(Overdue::Head), "the next head has begun");
        let _request = activity.request_began(true);
        activity.bytes_came();
        assert!(activity.look(start + 600 * S).is_ok());
    }

    #[test]
    fn a_connection_holds_one_answer_of_any_size_and_no_more_than_it_may() {
        let activity = Activity::new(PATIENCE);
        assert!(activity.try_hold(100));
        assert!(!activity.try_hold(1));
        activity.release(100);
        assert!(activity.try_hold(4) && activity.try_hold(5) && !activity.try_hold(1));
    }
}
