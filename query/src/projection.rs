//! What a projection is: a pure fold from a row and what happened to a row.
//!
//! - **Invariant:** nothing here or in [`crate::projections`] reads a clock, draws a random number, uses a float or
//!   shows the order of a hash map (rules R12), so a replay in any interleaving of the partitions ends in the same rows.
//! - **Invariant:** a projection knows no database. The store loads rows by key and writes rows in bulk; each
//!   projection is written once, whatever the store.

use std::collections::BTreeMap;

use domain::{OrderEvent, Recorded};

use crate::projections::orders::OrderRow;

/// One applied event, with the order before and after it.
#[derive(Debug, Clone, Copy)]
pub struct Change<'a> {
    /// What happened.
    pub recorded: &'a Recorded<OrderEvent>,
    /// The order before; none when the event created it.
    pub before: Option<&'a OrderRow>,
    /// The order after.
    pub after: &'a OrderRow,
}

/// A read model that sums up many orders. Its facts commute, so the order in which orders are read cannot show.
pub trait Totals {
    /// Names a row.
    type Key: Ord + Clone + Send + Sync;
    /// What is known under a key; `default()` before the first fact.
    type Row: Default + Send + Sync;
    /// What one change adds to one row.
    type Fact: Send + Sync;

    /// Tells the facts of a change, each with the row it concerns.
    fn facts(change: Change<'_>, tell: &mut impl FnMut(Self::Key, Self::Fact));

    /// The row after one more fact.
    fn fold(row: Self::Row, fact: &Self::Fact) -> Self::Row;
}

/// The facts of a batch, ready to be folded into the rows they concern.
#[derive(Debug)]
pub struct Facts<T: Totals> {
    told: Vec<(T::Key, T::Fact)>,
}

impl<T: Totals> Facts<T> {
    /// Collects the facts of all changes.
    pub fn of<'a>(changes: impl Iterator<Item = Change<'a>>) -> Self {
        let mut told = Vec::new();
        for change in changes {
            T::facts(change, &mut |key, fact| told.push((key, fact)));
        }
        Self { told }
    }

    /// The rows to load, each once, in key order.
    pub fn keys(&self) -> Vec<T::Key> {
        let mut keys: Vec<_> = self.told.iter().map(|(key, _fact)| key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The rows to write: what was loaded, with every fact folded in.
    pub fn fold_into(&self, loaded: BTreeMap<T::Key, T::Row>) -> BTreeMap<T::Key, T::Row> {
        let mut rows = loaded;
        for (key, fact) in &self.told {
            if let Some(row) = rows.get_mut(key) {
                *row = T::fold(std::mem::take(row), fact);
            } else {
                rows.insert(key.clone(), T::fold(T::Row::default(), fact));
            }
        }
        rows
    }
}
