//! What operators may wish for, and what came of it.
//!
//! A wish is a row: any node may be asked for it, the one that projects carries it out, and what came of it is written
//! in the transaction that brought it about. So a crash leaves it undone or done, never half told.

use domain::{OrderId, Version};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::hex;
use crate::intake::{Digest, Position};

/// Names a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LetterKey {
    /// Where it stood.
    pub topic: String,
    /// Where it stood.
    #[serde(flatten, with = "position")]
    pub position: Position,
    /// Of its value.
    #[serde(with = "digest")]
    pub digest: Digest,
}

/// What an operator wishes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "target", rename_all = "kebab-case")]
pub enum Wish {
    /// Every dead letter is read again, the oldest first.
    RetryDeadLetters,
    /// This dead letter is read again.
    RetryDeadLetter(LetterKey),
    /// This dead letter is known for good and never comes back.
    DiscardDeadLetter(LetterKey),
    /// What waits is judged afresh, of every order.
    RetryParked,
    /// What waits of this order is judged afresh.
    RetryOrder {
        /// Which.
        order_id: OrderId,
    },
    /// This waiting event is known for good and never applied.
    DiscardParked {
        /// Whose event.
        order_id: OrderId,
        /// Which of its events.
        version: Version,
        /// Of the message.
        #[serde(with = "digest")]
        digest: Digest,
    },
    /// The missing events of this order are fetched from the event log.
    HealOrder {
        /// Which.
        order_id: OrderId,
    },
}

impl Wish {
    /// The stored form: the kind, and what it is about as JSON.
    ///
    /// # Errors
    ///
    /// None in practice: everything in it can be written as JSON.
    pub fn to_stored(&self) -> Result<(String, String), serde_json::Error> {
        let value = serde_json::to_value(self)?;
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        Ok((kind, value["target"].to_string()))
    }

    /// Reads the stored form; none when another program wrote it.
    pub fn from_stored(kind: &str, target: &str) -> Option<Self> {
        let target: serde_json::Value = serde_json::from_str(target).ok()?;
        let stored = match target {
            serde_json::Value::Null => serde_json::json!({ "kind": kind }),
            target => serde_json::json!({ "kind": kind, "target": target }),
        };
        serde_json::from_value(stored).ok()
    }
}

/// A wish as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intervention {
    /// In the order of asking.
    pub id: Uuid,
    /// The stable name of what is wished.
    pub kind: String,
    /// What it is about, as JSON.
    pub target: String,
    /// Why, where it has to be told.
    pub reason: Option<String>,
    /// Who says to be asking.
    pub actor: Option<String>,
    /// When it was asked for, in microseconds.
    pub requested_at_micros: i64,
    /// How far it is carried out: the last key that was looked at, as JSON.
    pub reached: Option<String>,
    /// What came of it so far.
    pub outcome: Outcome,
    /// When it was done, in microseconds; none before.
    pub done_at_micros: Option<i64>,
}

/// What came of a wish.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// Dead letters or waiting events that were looked at.
    pub looked_at: usize,
    /// Events applied, those that had waited for them among them.
    pub applied: usize,
    /// Events that were known already.
    pub duplicates: usize,
    /// Events that wait now.
    pub waiting: usize,
    /// Records that are dead letters now.
    pub set_aside: usize,
    /// Dead letters or events that never come back.
    pub discarded: usize,
    /// Why it could not be carried out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Outcome {
    /// It could not be carried out.
    pub fn failed(why: impl Into<String>) -> Self {
        Self { error: Some(why.into()), ..Self::default() }
    }

    /// With what came of a further part.
    #[must_use]
    pub fn and(self, more: Self) -> Self {
        Self {
            looked_at: self.looked_at + more.looked_at,
            applied: self.applied + more.applied,
            duplicates: self.duplicates + more.duplicates,
            waiting: self.waiting + more.waiting,
            set_aside: self.set_aside + more.set_aside,
            discarded: self.discarded + more.discarded,
            error: more.error.or(self.error),
        }
    }
}

/// A position as two members of the object it is in.
mod position {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::intake::Position;

    #[derive(Serialize, Deserialize)]
    struct Members {
        partition: i32,
        offset: i64,
    }

    pub(super) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        Members { partition: position.partition, offset: position.offset }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        Members::deserialize(deserializer).map(|Members { partition, offset }| Position { partition, offset })
    }
}

/// A digest as hexadecimal digits.
mod digest {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::hex;
    use crate::intake::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(deserializer)?;
        hex::digest(&text).ok_or_else(|| D::Error::custom("not a digest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_goes_round_and_that_of_another_program_is_none() {
        let key = LetterKey {
            topic: "orders.events".into(),
            position: Position { partition: 3, offset: 17 },
            digest: [0xab; 16],
        };
        let order_id = OrderId(Uuid::from_u128(7));
        let wishes = [
            Wish::RetryDeadLetters,
            Wish::DiscardDeadLetter(key),
            Wish::RetryOrder { order_id },
            Wish::DiscardParked { order_id, version: Version(2), digest: [1; 16] },
        ];
        for wish in wishes {
            let (kind, target) = wish.to_stored().unwrap();
            assert_eq!(Wish::from_stored(&kind, &target), Some(wish), "{kind} {target}");
        }
        assert_eq!(Wish::from_stored("retry-everything", "null"), None);
        assert_eq!(Wish::from_stored("retry-order", "{}"), None);
    }
}
