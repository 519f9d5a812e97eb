//! Which command comes next, and for which order.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Orders beyond this many are left as they are.
const REMEMBERED_MAX: usize = 100_000;

/// Of eight commands, four place an order, two pay one, one ships one and one cancels one.
const MIX: [Kind; 8] =
    [Kind::Place, Kind::Place, Kind::Pay, Kind::Place, Kind::Cancel, Kind::Place, Kind::Pay, Kind::Ship];

/// A kind of command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `POST /orders`
    Place,
    /// `POST /orders/{id}/pay`
    Pay,
    /// `POST /orders/{id}/ship`
    Ship,
    /// `POST /orders/{id}/cancel`
    Cancel,
}

impl Kind {
    /// All of them, in the order of the report.
    pub(super) const ALL: [Self; 4] = [Self::Place, Self::Pay, Self::Ship, Self::Cancel];

    /// Its name in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Pay => "pay",
            Self::Ship => "ship",
            Self::Cancel => "cancel",
        }
    }
}

/// The orders that something can still be done with, oldest first.
#[derive(Debug, Default)]
pub(super) struct Book {
    orders: Mutex<Orders>,
}

#[derive(Debug, Default)]
struct Orders {
    placed: VecDeque<String>,
    paid: VecDeque<String>,
}

impl Book {
    /// The command of this number. Where there is no order for it yet, it places one.
    pub(super) fn choose(&self, sequence: u64) -> (Kind, Option<String>) {
        let wanted =
            usize::try_from(sequence % 8).ok().and_then(|index| MIX.get(index)).copied().unwrap_or(Kind::Place);
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = match wanted {
            Kind::Place => None,
            Kind::Pay | Kind::Cancel => orders.placed.pop_front(),
            Kind::Ship => orders.paid.pop_front(),
        };
        (if order.is_some() { wanted } else { Kind::Place }, order)
    }

    /// Remembers what can be done with the order next.
    pub(super) fn note(&self, done: Kind, order_id: String) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = match done {
            Kind::Place => &mut orders.placed,
            Kind::Pay => &mut orders.paid,
            Kind::Ship | Kind::Cancel => return,
        };
        if shelf.len() < REMEMBERED_MAX {
            shelf.push_back(order_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_only_asked_for_what_it_can_do() {
        let book = Book::default();
        let mut counts = [0_u32; 4];
        for sequence in 0..800 {
            let (kind, order) = book.choose(sequence);
            assert_eq!(order.is_none(), kind == Kind::Place);
            counts[Kind::ALL.iter().position(|other| *other == kind).unwrap()] += 1;
            book.note(kind, order.unwrap_or_else(|| sequence.to_string()));
        }
        // Half place, a quarter pays; what comes too early for its order places one instead.
        assert_eq!(counts, [400, 200, 100, 100]);
    }
}
