//! What ends a long question before its answer: its time is over, or whoever asked has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rusqlite::{Connection, ErrorCode};

use crate::store::Error;

/// Instructions of SQLite's machine between two looks at the clock: some tens of microseconds.
const STEPS_BETWEEN_LOOKS: i32 = 2_000;

/// Until when a question may go on.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    until: Instant,
    left: Arc<AtomicBool>,
}

/// Whoever asked. Dropped before the answer is there, it ends the question.
#[derive(Debug)]
pub(super) struct Asker(Arc<AtomicBool>);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Budget {
    /// A question that may go on `until` then, and whoever asks it.
    pub(super) fn new(until: Instant) -> (Self, Asker) {
        let left = Arc::new(AtomicBool::new(false));
        (Self { until, left: Arc::clone(&left) }, Asker(left))
    }

    /// Until when.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    fn is_over(&self) -> bool {
        self.left.load(Ordering::Relaxed) || Instant::now() >= self.until
    }

    /// Reads within the budget.
    pub(super) fn read<T>(
        self,
        connection: &Connection,
        read: impl FnOnce(&Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.is_over() {
            return Err(Error::OverBudget);
        }
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || self.is_over()))?;
        let answer = read(connection);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        match answer {
            Err(Error::File(error)) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                Err(Error::OverBudget)
            }
            answer => answer,
        }
    }
}
