//! The rules and the published facts of an order: no I/O, no clock, no randomness.
//!
//! ```text
//!             pay          ship           deliver
//!  Created ─────────► Paid ─────► Shipped ─────────► Delivered
//!     │ ▲ │             │
//!     │ └─┘ change      │ cancel (and refund)
//!     │     items       ▼
//!     └──────────► Cancelled
//!        cancel
//! ```
//!
//! - **Invariant:** nothing here reads a clock, draws a random number or touches the outside;
//!   time and identifiers arrive as data. `domain/clippy.toml` enforces it.
//! - **Invariant:** money is an exact number of minor units; no float occurs.
//! - **Invariant:** what is published is only ever added to ([`schema`]): six fields of
//!   `OrderCreated` are a contract with every consumer that ever was.
//!
//! Read [`order`] first, then [`order::decide`], then [`schema`].
#![deny(clippy::float_arithmetic, clippy::wildcard_enum_match_arm)]

pub mod decider;
pub mod order;

pub mod ids;
pub mod money;
pub mod recorded;
pub mod schema;
pub mod time;

#[cfg(any(test, feature = "spec"))]
pub mod spec;

pub use decider::{Decider, fold};
pub use ids::{CustomerId, EventId, OrderId, Sku, Version};
pub use money::{Currency, Money};
pub use order::{Order, OrderCommand, OrderEvent, Rejection};
pub use recorded::{Metadata, Recorded};
