//! What happened on a day (UTC), per currency. Each fact counts on the day of its own event, so yesterday's order
//! that is refunded today lowers today's revenue and leaves yesterday's as it was reported.

use domain::Currency;
use domain::order::Status;

use crate::projection::{Change, Totals};
use crate::sum::Sum;

const DAY_SECONDS: i64 = 86_400;

/// The projection.
#[derive(Debug)]
pub struct DailySales;

/// A day's totals in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DayRow {
    /// Orders placed.
    pub orders: i64,
    /// Orders given up.
    pub cancellations: i64,
    /// Payments minus refunds.
    pub revenue: Sum,
}

/// What a change adds.
#[derive(Debug, Clone)]
pub enum DayFact {
    /// An order was placed.
    Placed,
    /// An order was given up.
    GaveUp,
    /// Money came in, or went back.
    Earned(Sum),
}

impl Totals for DailySales {
    /// Days since 1970-01-01, and the currency.
    type Key = (i64, Currency);
    type Row = DayRow;
    type Fact = DayFact;

    fn facts(change: Change<'_>, tell: &mut impl FnMut(Self::Key, DayFact)) {
        let Change { recorded, before, after } = change;
        let day = recorded.occurred_at.timestamp().div_euclid(DAY_SECONDS);
        let mut tell = |fact| tell((day, after.total.currency()), fact);
        match before {
            None => tell(DayFact::Placed),
            Some(before) => {
                if before.status != after.status && after.status == Status::Cancelled {
                    tell(DayFact::GaveUp);
                }
                let earned = after.net_paid() + -before.net_paid();
                if earned != Sum::default() {
                    tell(DayFact::Earned(earned));
                }
            }
        }
    }

    fn fold(mut row: DayRow, fact: &DayFact) -> DayRow {
        match *fact {
            DayFact::Placed => row.orders += 1,
            DayFact::GaveUp => row.cancellations += 1,
            DayFact::Earned(sum) => row.revenue = row.revenue + sum,
        }
        row
    }
}
