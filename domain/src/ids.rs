//! Names of things: each a type of its own, checked once where it enters.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The most characters of a [`CustomerId`].
pub const CUSTOMER_ID_CHARS_MAX: usize = 128;
/// The most characters of a [`Sku`].
pub const SKU_CHARS_MAX: usize = 64;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidId {
    /// Nothing but white space.
    #[error("{what} must not be empty")]
    Empty {
        /// The kind of identifier.
        what: &'static str,
    },
    /// Longer than its limit.
    #[error("{what} must have at most {chars_max} characters")]
    TooLong {
        /// The kind of identifier.
        what: &'static str,
        /// The limit, in characters.
        chars_max: usize,
    },
    /// A control character, U+0000 among them, which not every store can hold (rules R13).
    #[error("{what} must not contain control characters")]
    ControlCharacter {
        /// The kind of identifier.
        what: &'static str,
    },
}

fn checked(what: &'static str, text: String, chars_max: usize) -> Result<String, InvalidId> {
    if text.trim().is_empty() {
        return Err(InvalidId::Empty { what });
    }
    if text.chars().count() > chars_max {
        return Err(InvalidId::TooLong { what, chars_max });
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidId::ControlCharacter { what });
    }
    Ok(text)
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                checked($what, text, $max).map(Self)
            }
        }
        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::try_from(text.to_owned())
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// Who ordered: an opaque name, at most [`CUSTOMER_ID_CHARS_MAX`] characters. Keep personal data out of it.
    CustomerId, "customer_id", CUSTOMER_ID_CHARS_MAX
);
text_id!(
    /// A stock keeping unit: what is sold, at most [`SKU_CHARS_MAX`] characters.
    Sku, "sku", SKU_CHARS_MAX
);

/// One order: the aggregate's identity and the key of its records on the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One event, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl EventId {
    /// The identity of an event that came without one: the same order and version give the same id everywhere.
    pub fn derived(order: OrderId, version: Version) -> Self {
        Self(Uuid::new_v5(&order.0, version.to_string().as_bytes()))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many events an order has: its events are numbered 1, 2, 3 … without a gap. Zero: none yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(pub u32);

impl Version {
    /// The version of an order's first event.
    pub const FIRST: Self = Self(1);

    /// The version that follows this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Version> for i64 {
    fn from(version: Version) -> i64 {
        i64::from(version.0)
    }
}

impl TryFrom<i64> for Version {
    type Error = std::num::TryFromIntError;
    fn try_from(stored: i64) -> Result<Self, Self::Error> {
        u32::try_from(stored).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_checked_where_it_enters() {
        assert_eq!("customer-1".parse::<CustomerId>().unwrap().as_str(), "customer-1");
        assert_eq!("  ".parse::<CustomerId>(), Err(InvalidId::Empty { what: "customer_id" }));
        assert_eq!("x".repeat(65).parse::<Sku>(), Err(InvalidId::TooLong { what: "sku", chars_max: 64 }));
        assert_eq!("a\0b".parse::<Sku>(), Err(InvalidId::ControlCharacter { what: "sku" }));
        assert!("é".repeat(64).parse::<Sku>().is_ok(), "the limit counts characters, not bytes");
    }

    #[test]
    fn a_derived_event_id_depends_on_order_and_version_alone() {
        let order = OrderId(Uuid::from_u128(7));
        assert_eq!(EventId::derived(order, Version(1)), EventId::derived(order, Version(1)));
        assert_ne!(EventId::derived(order, Version(1)), EventId::derived(order, Version(2)));
    }
}
