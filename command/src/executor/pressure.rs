//! What PostgreSQL has run out of, as the lanes meet it: for readiness.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chassis::postgres::exhausted;
use tokio::sync::mpsc::WeakSender;
use tokio::time::Instant;

use super::Pending;
use crate::store;

/// How long a refusal counts when no command comes that could show that it is over.
const COUNTS_FOR: Duration = Duration::from_secs(60);

/// The last refusal for lack of a resource, unless a transaction has succeeded since. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Pressure(Arc<Mutex<Option<(Instant, &'static str)>>>);

impl Pressure {
    /// Notes a transaction that failed.
    pub(super) fn failed(&self, error: &store::Error) {
        if let store::Error::Database(error) = error
            && let Some(what) = exhausted(error)
        {
            *self.last() = Some((Instant::now(), what));
        }
    }

    /// Notes a transaction that was committed.
    pub(super) fn works(&self) {
        *self.last() = None;
    }

    fn exhausted(&self) -> Option<&'static str> {
        self.last().filter(|(since, _what)| since.elapsed() < COUNTS_FOR).map(|(_since, what)| what)
    }

    fn last(&self) -> MutexGuard<'_, Option<(Instant, &'static str)>> {
        // It is assigned whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether commands find room. It keeps no lane running.
#[derive(Debug, Clone)]
pub struct Room {
    pub(super) lanes: Box<[WeakSender<Pending>]>,
    pub(super) pressure: Pressure,
}

impl Room {
    /// A check for readiness.
    ///
    /// # Errors
    ///
    /// What is used up, in words for people.
    pub fn check(&self) -> Result<(), String> {
        if let Some(what) = self.pressure.exhausted() {
            return Err(format!("PostgreSQL refuses commands: {what}"));
        }
        let full = self.lanes.iter().filter_map(WeakSender::upgrade).filter(|lane| lane.capacity() == 0).count();
        if full == 0 { Ok(()) } else { Err(format!("{full} of {} queues are full", self.lanes.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_used_up_is_told_until_a_transaction_succeeds_or_it_is_long_ago() {
        let room = Room { lanes: Box::default(), pressure: Pressure::default() };
        let refused = Some((Instant::now(), "the disk is full"));
        room.check().unwrap();
        *room.pressure.last() = refused;
        assert_eq!(room.check().unwrap_err(), "PostgreSQL refuses commands: the disk is full");
        room.pressure.works();
        room.check().unwrap();
        *room.pressure.last() = refused;
        tokio::time::advance(COUNTS_FOR).await;
        room.check().unwrap();
    }
}
