//! What a customer ordered and spent, per currency.

use domain::order::Status;
use domain::{Currency, CustomerId, OrderId};
use uuid::Uuid;

use crate::projection::{Change, Totals};
use crate::sum::Sum;

/// The projection.
#[derive(Debug)]
pub struct Customers;

/// A customer's totals in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerRow {
    /// Orders placed.
    pub orders: i64,
    /// Orders given up.
    pub cancellations: i64,
    /// Paid minus refunded.
    pub spend: Sum,
    /// When the newest order was placed, in microseconds, and which it is.
    pub last_order: (i64, OrderId),
}

impl Default for CustomerRow {
    fn default() -> Self {
        // Earlier than every order.
        let last_order = (i64::MIN, OrderId(Uuid::nil()));
        Self { orders: 0, cancellations: 0, spend: Sum::default(), last_order }
    }
}

/// What a change adds.
#[derive(Debug, Clone)]
pub enum CustomerFact {
    /// An order was placed.
    Placed {
        /// When, in microseconds.
        at_micros: i64,
        /// Which.
        order_id: OrderId,
    },
    /// An order was given up.
    GaveUp,
    /// Money came in, or went back.
    Spent(Sum),
}

impl Totals for Customers {
    type Key = (CustomerId, Currency);
    type Row = CustomerRow;
    type Fact = CustomerFact;

    fn facts(change: Change<'_>, tell: &mut impl FnMut(Self::Key, CustomerFact)) {
        let Change { before, after, .. } = change;
        let mut tell = |fact| tell((after.customer_id.clone(), after.total.currency()), fact);
        match before {
            None => {
                let at_micros = after.created_at.timestamp_micros();
                tell(CustomerFact::Placed { at_micros, order_id: after.order_id });
            }
            Some(before) => {
                if before.status != after.status && after.status == Status::Cancelled {
                    tell(CustomerFact::GaveUp);
                }
                let spent = after.net_paid() + -before.net_paid();
                if spent != Sum::default() {
                    tell(CustomerFact::Spent(spent));
                }
            }
        }
    }

    fn fold(mut row: CustomerRow, fact: &CustomerFact) -> CustomerRow {
        match *fact {
            CustomerFact::Placed { at_micros, order_id } => {
                row.orders += 1;
                row.last_order = row.last_order.max((at_micros, order_id));
            }
            CustomerFact::GaveUp => row.cancellations += 1,
            CustomerFact::Spent(sum) => row.spend = row.spend + sum,
        }
        row
    }
}
