//! Where a command is: between the caller, whose time may be up, and the lane, which may be about to execute it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Failure;

/// A command's place, shared by its caller and its lane. Whoever moves first decides whether it is executed.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Mutex<Stage>>);

#[derive(Debug)]
struct Stage {
    /// What to say when time is up.
    waits_for: Failure,
    /// A message to the database contains it.
    in_flight: bool,
    /// The caller was told that it is not executed.
    left: bool,
}

impl Place {
    /// A place in a queue.
    pub(super) fn waiting(waits_for: Failure) -> Self {
        Self(Arc::new(Mutex::new(Stage { waits_for, in_flight: false, left: false })))
    }

    /// The lane is about to send the command to the database. False when the caller has left.
    pub(super) fn take(&self) -> bool {
        let mut stage = self.stage();
        stage.in_flight = !stage.left;
        stage.in_flight
    }

    /// Nothing was executed: the caller may leave again.
    pub(super) fn not_executed(&self) {
        self.stage().in_flight = false;
    }

    /// The command goes back to the queue, waiting for something.
    pub(super) fn wait_for(&self, waits_for: Failure) {
        let mut stage = self.stage();
        (stage.waits_for, stage.in_flight) = (waits_for, false);
    }

    /// Ends the wait for good and returns what to say; none while a message contains the command, or after it was said.
    pub(super) fn leave(&self) -> Option<Failure> {
        let mut stage = self.stage();
        let leaves = !stage.in_flight && !stage.left;
        stage.left |= leaves;
        leaves.then_some(stage.waits_for)
    }

    /// Whether the caller was told that the command is not executed.
    pub(super) fn has_left(&self) -> bool {
        self.stage().left
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        // Three words are whole even when somebody panicked beside them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_either_executed_or_told_as_not_executed() {
        let left = Place::waiting(Failure::TimedOut);
        assert_eq!(left.leave(), Some(Failure::TimedOut));
        assert!(left.has_left() && !left.take(), "the caller was told that it is not executed");

        let taken = Place::waiting(Failure::TimedOut);
        assert!(taken.take() && taken.take());
        assert_eq!(taken.leave(), None, "it may be executed now");
        taken.not_executed();
        assert!(taken.take());
        taken.wait_for(Failure::KeyBusy);
        assert_eq!(taken.leave(), Some(Failure::KeyBusy));
        assert_eq!(taken.leave(), None, "it was said");
    }
}
