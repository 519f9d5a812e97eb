//! Why orders were given up: how many on a day (UTC), of a customer, for a reason.

use domain::CustomerId;
use serde::Serialize;

use crate::projection::{Change, Totals};

const DAY_SECONDS: i64 = 86_400;

/// The most characters of a reason: as many as `order-command` takes. Nothing bounds what others write to the topic,
/// and the key of an index has to be short.
pub const REASON_CHARS_MAX: usize = 500;

/// A reason as it is counted: cut at [`REASON_CHARS_MAX`], with blanks for control characters (PostgreSQL does not
/// store U+0000). The order itself keeps its reason as it was told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Reason(String);

impl Reason {
    /// The reason as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Reason {
    fn from(told: &str) -> Self {
        let blank = |letter: char| if letter.is_control() { ' ' } else { letter };
        Self(told.chars().take(REASON_CHARS_MAX).map(blank).collect())
    }
}

/// The projection.
#[derive(Debug)]
pub struct Cancellations;

impl Totals for Cancellations {
    /// Days since 1970-01-01, who, and why.
    type Key = (i64, CustomerId, Reason);
    /// Orders given up.
    type Row = i64;
    /// One more.
    type Fact = ();

    fn facts(change: Change<'_>, tell: &mut impl FnMut(Self::Key, ())) {
        let Change { before, after, .. } = change;
        let was_cancelled = before.is_some_and(|before| before.cancelled.is_some());
        if let Some(cancelled) = after.cancelled.as_ref().filter(|_cancelled| !was_cancelled) {
            let day = cancelled.at.timestamp().div_euclid(DAY_SECONDS);
            tell((day, after.customer_id.clone(), Reason::from(cancelled.reason.as_str())), ());
        }
    }

    fn fold(orders: i64, (): &()) -> i64 {
        orders + 1
    }
}
