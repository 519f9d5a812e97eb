//! Every no that the business can say.

use thiserror::Error;

use crate::ids::Sku;

/// Why a command is refused. Nothing has changed when one is answered.
///
/// The codes are published: clients branch on them, and each has a page in `docs/errors/`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Rejection {
    /// No such order.
    #[error("there is no such order")]
    UnknownOrder,
    /// An order of that id exists.
    #[error("an order with this id exists already")]
    OrderAlreadyExists,
    /// An order needs at least one item.
    #[error("an order needs at least one item")]
    EmptyOrder,
    /// More items than an order may have.
    #[error("an order has at most {items_max} items, this one has {items}")]
    TooManyItems {
        /// How many were given.
        items: usize,
        /// How many are allowed.
        items_max: usize,
    },
    /// The same SKU twice.
    #[error("`{sku}` occurs twice: add the quantities up")]
    DuplicateSku {
        /// Which.
        sku: Sku,
        /// The index of its second occurrence.
        index: usize,
    },
    /// A quantity out of range.
    #[error("a quantity is from 1 to {quantity_max}, not {quantity}")]
    InvalidQuantity {
        /// What was given.
        quantity: u32,
        /// How many are allowed.
        quantity_max: u32,
        /// The index of the item.
        index: usize,
    },
    /// The catalogue has no price for it.
    #[error("`{sku}` is not in the catalogue")]
    UnknownSku {
        /// Which.
        sku: Sku,
        /// The index of the item.
        index: usize,
    },
    /// Prices in more than one currency.
    #[error("the items are priced in different currencies; an order has one")]
    MixedCurrencies,
    /// The total does not fit.
    #[error("the total is too large")]
    AmountOutOfRange,
    /// Items change only before payment.
    #[error("items can change only before payment")]
    ItemsFrozen,
    /// It is paid.
    #[error("the order is paid already")]
    AlreadyPaid,
    /// It is not paid.
    #[error("the order is not paid yet")]
    NotPaid,
    /// It has left.
    #[error("the order has been shipped already")]
    AlreadyShipped,
    /// It has not left.
    #[error("the order has not been shipped yet")]
    NotShipped,
    /// It has arrived.
    #[error("the order has been delivered already")]
    AlreadyDelivered,
    /// It was given up.
    #[error("the order is cancelled")]
    AlreadyCancelled,
    /// It has left, so it cannot be given up.
    #[error("an order that has been shipped cannot be cancelled")]
    NotCancellable,
}

impl Rejection {
    /// The stable code that clients branch on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownOrder => "unknown-order",
            Self::OrderAlreadyExists => "order-already-exists",
            Self::EmptyOrder => "empty-order",
            Self::TooManyItems { .. } => "too-many-items",
            Self::DuplicateSku { .. } => "duplicate-sku",
            Self::InvalidQuantity { .. } => "invalid-quantity",
            Self::UnknownSku { .. } => "unknown-sku",
            Self::MixedCurrencies => "mixed-currencies",
            Self::AmountOutOfRange => "amount-out-of-range",
            Self::ItemsFrozen => "items-frozen",
            Self::AlreadyPaid => "already-paid",
            Self::NotPaid => "not-paid",
            Self::AlreadyShipped => "already-shipped",
            Self::NotShipped => "not-shipped",
            Self::AlreadyDelivered => "already-delivered",
            Self::AlreadyCancelled => "already-cancelled",
            Self::NotCancellable => "not-cancellable",
        }
    }

    /// The field at fault as a JSON Pointer into the request's body, where there is one.
    pub fn pointer(&self) -> Option<String> {
        match self {
            Self::EmptyOrder | Self::TooManyItems { .. } | Self::MixedCurrencies | Self::AmountOutOfRange => {
                Some("/items".to_owned())
            }
            Self::InvalidQuantity { index, .. } => Some(format!("/items/{index}/quantity")),
            Self::DuplicateSku { index, .. } | Self::UnknownSku { index, .. } => Some(format!("/items/{index}/sku")),
            Self::UnknownOrder
            | Self::OrderAlreadyExists
            | Self::ItemsFrozen
            | Self::AlreadyPaid
            | Self::NotPaid
            | Self::AlreadyShipped
            | Self::NotShipped
            | Self::AlreadyDelivered
            | Self::AlreadyCancelled
            | Self::NotCancellable => None,
        }
    }
}
