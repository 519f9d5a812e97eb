//! Generations of the read model: the same events projected once more, beside the tables that are served.
//!
//! A generation is a whole read model with its own checkpoints and its own right to write: a file in SQLite, a schema in
//! PostgreSQL. One of them is live. Whoever serves follows the pointer to it ([`crate::follow`]); whoever rebuilds makes
//! the next one and moves the pointer ([`crate::rebuild`]).
//!
//! - **Invariant:** all projections of a generation move together; a reader never sees rows of two generations in one
//!   table.
//! - **Invariant:** a projection that another revision of this program filled is not folded on: its rows would be of
//!   both.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::projections::REVISIONS;

/// Counts generations, from 1.
pub type Number = i64;

/// The first generation: the database that the configuration names. It also holds the pointer to the live one.
pub const FIRST: Number = 1;

/// Which revision of each projection fills a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revisions(BTreeMap<String, u32>);

/// How the projections of a generation compare with this program's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// They are the same.
    Ours,
    /// Some are of an older program, or missing: it has to be rebuilt.
    Older,
    /// Some are of a newer program: this one must not write to it.
    Newer,
}

impl Revisions {
    /// Those of this program.
    pub fn ours() -> Self {
        Self(REVISIONS.iter().map(|(name, revision)| ((*name).to_owned(), *revision)).collect())
    }

    /// Whether the projection is filled by this program's revision of it.
    pub fn folds(&self, projection: &str) -> bool {
        self.0.get(projection) == Self::ours().0.get(projection)
    }

    /// Whether the projection is filled at all, by whichever revision.
    pub fn has(&self, projection: &str) -> bool {
        self.0.contains_key(projection)
    }

    /// Those projections that `other` has too.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let both = self.0.iter().filter(|(name, _revision)| other.has(name));
        Self(both.map(|(name, revision)| (name.clone(), *revision)).collect())
    }

    /// How they compare with this program's.
    pub fn age(&self) -> Age {
        let ours = Self::ours();
        let newer = self.0.iter().any(|(name, revision)| ours.0.get(name).is_none_or(|ours| revision > ours));
        match () {
            () if newer => Age::Newer,
            () if *self == ours => Age::Ours,
            () => Age::Older,
        }
    }

    /// As it is stored.
    pub fn to_json(&self) -> String {
        // A map of names to numbers can be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl fmt::Display for Revisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(name, revision)| format!("{name} {revision}")).collect();
        f.write_str(&each.join(", "))
    }
}

/// Where a generation is built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The topic, from offset zero.
    Topic,
    /// The event log of order-command, then the topic from where it ended when the log was begun.
    Log,
}

/// Whether a generation may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not yet.
    Building,
    /// It may.
    Complete,
}

/// Who builds a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builder {
    /// A running service: it goes on when it is started again.
    Service,
    /// `order-query rebuild`: it goes on when it is called again.
    Command,
}

macro_rules! named {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// The name in answers and tables.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }

            /// The one of that name, as `as_str` prints it.
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

named!(Source { Topic = "topic", Log = "log" });
named!(State { Building = "building", Complete = "complete" });
named!(Builder { Service = "service", Command = "command" });

/// A generation, as its own tables tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Which one.
    pub number: Number,
    /// What fills it.
    pub revisions: Revisions,
    /// Whether it may be served.
    pub state: State,
    /// Where it is built from.
    pub source: Source,
    /// Who builds it.
    pub builder: Builder,
    /// When that began, in microseconds.
    pub started_at_micros: i64,
    /// When it was complete, in microseconds.
    pub completed_at_micros: Option<i64>,
    /// How far that is.
    pub built: Built,
    /// What the verification counted, or where it found a difference, as JSON.
    pub report: Option<String>,
}

/// How far the building of a generation is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Built {
    /// Records read.
    pub done: i64,
    /// Records there are, as far as known.
    pub total: i64,
    /// When that was told, in microseconds.
    pub told_at_micros: i64,
}

impl Generation {
    /// Whether a rebuild can go on with it: it is being built, and was not found to differ from its source.
    pub fn is_begun(&self) -> bool {
        self.state == State::Building && self.report.is_none()
    }

    /// A generation of this program that begins now.
    pub fn begun(number: Number, source: Source, builder: Builder, now_micros: i64) -> Self {
        // The first one is served from its first row on, there being nothing else.
        let state = if number == FIRST { State::Complete } else { State::Building };
        Self {
            number,
            revisions: Revisions::ours(),
            state,
            source,
            builder,
            started_at_micros: now_micros,
            completed_at_micros: None,
            built: Built::default(),
            report: None,
        }
    }
}

/// Which generation is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// This one.
    pub number: Number,
    /// And before it this one.
    pub previous: Option<Number>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_of_a_newer_program_is_told_from_one_of_an_older() {
        let ours = Revisions::ours();
        assert_eq!(ours.age(), Age::Ours);
        let mut older = ours.clone();
        older.0.remove("customers");
        assert_eq!((older.age(), older.folds("customers"), older.has("customers")), (Age::Older, false, false));
        assert_eq!((ours.both(&older), older.both(&ours)), (older.clone(), older.clone()));
        let mut newer = older;
        newer.0.insert("of the future".to_owned(), 1);
        assert_eq!(newer.age(), Age::Newer);
        assert_eq!(serde_json::from_str::<Revisions>(&newer.to_json()).unwrap(), newer);
    }
}
