//! The order: its states, and what each event does to them.

pub mod command;
pub mod decide;
pub mod event;
pub mod rejection;
pub mod upcast;

use serde::{Deserialize, Serialize};

pub use command::{DraftLine, OrderCommand};
pub use event::{Line, OrderEvent};
pub use rejection::Rejection;

use crate::decider::Decider;
use crate::ids::CustomerId;
use crate::money::Money;

/// An order at one version of its life. Stored in the aggregate row as a cache of the fold of its events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", content = "basket", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Order {
    /// Nobody has placed it.
    #[default]
    Absent,
    /// Placed, not paid; its items may change.
    Created(Basket),
    /// Paid, not shipped.
    Paid(Basket),
    /// On its way.
    Shipped(Basket),
    /// Arrived. Final.
    Delivered(Basket),
    /// Given up before shipping; what was paid is refunded. Final.
    Cancelled(Basket),
}

/// What was ordered, by whom, for how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basket {
    /// Who ordered.
    pub customer_id: CustomerId,
    /// What was ordered.
    pub lines: Vec<Line>,
    /// What it costs.
    pub total: Money,
}

/// The published name of a state, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Placed, not paid.
    Created,
    /// Paid, not shipped.
    Paid,
    /// On its way.
    Shipped,
    /// Arrived.
    Delivered,
    /// Given up.
    Cancelled,
}

impl Status {
    /// All of them, in the order of an order's life.
    pub const ALL: [Self; 5] = [Self::Created, Self::Paid, Self::Shipped, Self::Delivered, Self::Cancelled];

    /// The name in answers and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Paid => "PAID",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The status of that name, as [`Status::as_str`] prints it.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl Order {
    /// Counts changes to the stored form of this type; a row of another revision is folded from its events anew.
    pub const STATE_REVISION: i16 = 1;

    /// What was ordered, once it exists.
    pub fn basket(&self) -> Option<&Basket> {
        match self {
            Self::Absent => None,
            Self::Created(basket)
            | Self::Paid(basket)
            | Self::Shipped(basket)
            | Self::Delivered(basket)
            | Self::Cancelled(basket) => Some(basket),
        }
    }

    /// The published name of the state, once it exists.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Absent => None,
            Self::Created(_) => Some(Status::Created),
            Self::Paid(_) => Some(Status::Paid),
            Self::Shipped(_) => Some(Status::Shipped),
            Self::Delivered(_) => Some(Status::Delivered),
            Self::Cancelled(_) => Some(Status::Cancelled),
        }
    }

    /// True once no command can change it any more.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Delivered(_) | Self::Cancelled(_))
    }
}

impl Decider for Order {
    type State = Self;
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Rejection = Rejection;

    fn decide(state: &Self, command: OrderCommand) -> Result<Vec<OrderEvent>, Rejection> {
        decide::decide(state, command)
    }

    /// Total: an event that [`decide`](decide::decide) cannot have caused in this state leaves it as it is.
    fn evolve(state: Self, event: &OrderEvent) -> Self {
        match (event, state) {
            (OrderEvent::OrderCreated(created), Self::Absent) => Self::Created(Basket {
                customer_id: created.customer_id.clone(),
                lines: created.lines.clone(),
                total: created.total,
            }),
            (OrderEvent::OrderItemsChanged(changed), Self::Created(basket)) => {
                Self::Created(Basket { lines: changed.lines.clone(), total: changed.total, ..basket })
            }
            (OrderEvent::OrderPaid(_), Self::Created(basket)) => Self::Paid(basket),
            (OrderEvent::OrderShipped(_), Self::Paid(basket)) => Self::Shipped(basket),
            (OrderEvent::OrderDelivered(_), Self::Shipped(basket)) => Self::Delivered(basket),
            (OrderEvent::OrderCancelled(_), Self::Created(basket) | Self::Paid(basket)) => Self::Cancelled(basket),
            // The refund follows a cancellation and changes nothing that a later command asks about.
            (
                OrderEvent::OrderCreated(_)
                | OrderEvent::OrderItemsChanged(_)
                | OrderEvent::OrderPaid(_)
                | OrderEvent::OrderShipped(_)
                | OrderEvent::OrderDelivered(_)
                | OrderEvent::OrderCancelled(_)
                | OrderEvent::OrderRefunded(_),
                state,
            ) => state,
        }
    }
}
