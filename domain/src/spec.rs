//! Given some events, when a command comes, then these events follow: how a decider is tested.

use std::fmt::Debug;

use crate::decider::{Decider, fold};

/// A history to test against.
#[derive(Debug)]
pub struct Given<D: Decider> {
    history: Vec<D::Event>,
}

/// What a decider answered.
#[derive(Debug)]
pub struct Outcome<D: Decider> {
    answer: Result<Vec<D::Event>, D::Rejection>,
}

/// Starts from a history; an empty one is the time before the first event.
pub fn given<D: Decider>(history: impl IntoIterator<Item = D::Event>) -> Given<D> {
    Given { history: history.into_iter().collect() }
}

impl<D: Decider> Given<D> {
    /// Asks.
    pub fn when(self, command: D::Command) -> Outcome<D> {
        Outcome { answer: D::decide(&fold::<D>(&self.history), command) }
    }

    /// Asserts where the history leads.
    #[track_caller]
    pub fn leads_to(self, state: &D::State)
    where
        D::State: Debug + PartialEq,
    {
        assert_eq!(&fold::<D>(&self.history), state);
    }
}

impl<D: Decider> Outcome<D>
where
    D::Event: Debug + PartialEq,
    D::Rejection: Debug + PartialEq,
{
    /// Asserts that exactly these events follow.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = D::Event>) {
        assert_eq!(self.answer, Ok(events.into_iter().collect()));
    }

    /// Asserts that the command is accepted and changes nothing.
    #[track_caller]
    pub fn then_nothing_happens(self) {
        assert_eq!(self.answer, Ok(Vec::new()));
    }

    /// Asserts that the command is refused for this reason.
    #[track_caller]
    pub fn then_rejected(self, rejection: D::Rejection) {
        assert_eq!(self.answer, Err(rejection));
    }
}
