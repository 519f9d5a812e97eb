//! The decider: the whole theory of event sourcing in two functions.
//!
//! The shape is Jérémie Chassaing's; we keep it to what both the order and a process manager need.

/// A state machine that decides which events a command causes, and what an event does to its state.
///
/// Both functions are pure and total, so a history can be replayed anywhere, any number of times.
pub trait Decider {
    /// What is known after some events; `default()` is what is known before the first.
    type State: Default;
    /// What can be asked.
    type Command;
    /// What can have happened.
    type Event;
    /// Why the answer can be no.
    type Rejection;

    /// The events that `command` causes in `state`; none when nothing changes.
    ///
    /// # Errors
    ///
    /// The rule that forbids the command.
    fn decide(state: &Self::State, command: Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after `event`.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;
}

/// The state after a whole history, from the beginning.
pub fn fold<'e, D: Decider>(history: impl IntoIterator<Item = &'e D::Event>) -> D::State
where
    D::Event: 'e,
{
    history.into_iter().fold(D::State::default(), D::evolve)
}
