//! The message on the topic: one flat JSON object per event, read and written here and nowhere else.
//!
//! - **Invariant:** `event_type`, `order_id`, `customer_id`, `items[].sku`, `items[].quantity`, `total` and
//!   `created_at` of `OrderCreated` are never removed or retyped.
//! - **Invariant:** every (type, version) ever written has a file in `domain/golden/` that is never edited.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::ids::{EventId, OrderId, Version};
use crate::money::Currency;
use crate::order::OrderEvent;
use crate::order::event::OrderCreated;
use crate::recorded::Recorded;
use crate::time::Timestamp;

mod object;
pub(crate) mod wire;

/// The largest message, in bytes. Checked before anything is committed, far below the topic's limit (rules R14).
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// A message that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// The event.
    pub recorded: Recorded<OrderEvent>,
    /// Who wrote it.
    pub origin: Origin,
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This service: the message identifies its event.
    Log,
    /// Somebody who knows the six published fields alone: id and version are derived.
    PublishedFieldsOnly,
}

/// Why a message was not understood.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// It can never have come from our relay: set it aside and go on (rules R10).
    #[error("not a message of this service: {reason}")]
    Garbage {
        /// What is wrong with it.
        reason: String,
    },
    /// A sound envelope around something newer than this program: keep the order waiting for an upgrade (rules R10).
    #[error("`{event_type}` of schema version {schema_version} is newer than this program")]
    Newer {
        /// Whose event.
        order_id: OrderId,
        /// Its place in the order's history.
        version: Version,
        /// Its type.
        event_type: String,
        /// Its schema version.
        schema_version: u16,
    },
}

fn garbage(reason: impl ToString) -> DecodeError {
    DecodeError::Garbage { reason: reason.to_string() }
}

/// What every message carries, whatever its type.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    order_id: OrderId,
    event_id: Option<EventId>,
    version: Option<u32>,
    schema_version: Option<u16>,
    occurred_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct Head<'a> {
    event_type: &'a str,
    order_id: OrderId,
}

#[derive(Serialize)]
struct Tail {
    event_id: EventId,
    version: Version,
    schema_version: u16,
    occurred_at: DateTime<Utc>,
}

/// The message for an event: the exact text that is stored, hashed and published (rules R13).
///
/// # Errors
///
/// None for any event that `decide` can cause; a serialisation fault of the JSON library otherwise.
pub fn encode(recorded: &Recorded<OrderEvent>) -> Result<String, serde_json::Error> {
    let event = &recorded.event;
    let head = serde_json::to_string(&Head { event_type: event.event_type(), order_id: recorded.order_id })?;
    let body = wire::encode_body(event)?;
    let tail = serde_json::to_string(&Tail {
        event_id: recorded.event_id,
        version: recorded.version,
        schema_version: event.schema_version(),
        occurred_at: recorded.occurred_at,
    })?;
    Ok(splice([&head, &body, &tail]))
}

/// One flat object from several. Serde's own `flatten` goes through a float and would lose the digits of `total`.
fn splice(objects: [&str; 3]) -> String {
    let mut flat = String::with_capacity(objects.iter().map(|object| object.len()).sum());
    flat.push('{');
    for object in objects {
        let members = object.trim_start_matches('{').strip_suffix('}').unwrap_or_default();
        if members.is_empty() {
            continue;
        }
        if flat.len() > 1 {
            flat.push(',');
        }
        flat.push_str(members);
    }
    flat.push('}');
    flat
}

/// Reads a message of any version ever published, through the upcasters.
///
/// `default_currency` is the currency of messages that name none (schema version 1).
///
/// # Errors
///
/// [`DecodeError::Garbage`] when it cannot have come from this service nor from a writer of the published contract,
/// [`DecodeError::Newer`] when it comes from a later release.
pub fn decode(message: &[u8], default_currency: Currency) -> Result<Decoded, DecodeError> {
    let text = str::from_utf8(message).map_err(garbage)?;
    let envelope: Envelope<'_> = object::read(text).map_err(garbage)?;
    match (envelope.version, envelope.event_id, envelope.schema_version.unwrap_or(1)) {
        (None, None, 1) => decode_published_fields(text, &envelope, default_currency),
        (Some(version), Some(event_id), schema_version) if version > 0 && schema_version > 0 => {
            let version = Version(version);
            let event = match wire::decode_body(&envelope.event_type, schema_version, text, default_currency) {
                Err(wire::BodyError::Newer) => {
                    return Err(DecodeError::Newer {
                        order_id: envelope.order_id,
                        version,
                        event_type: envelope.event_type.into_owned(),
                        schema_version,
                    });
                }
                Err(wire::BodyError::Garbage(reason)) => return Err(DecodeError::Garbage { reason }),
                Ok(event) => event,
            };
            let occurred_at = envelope.occurred_at.ok_or_else(|| garbage("`occurred_at` is missing"))?.utc();
            let order_id = envelope.order_id;
            let recorded = Recorded { event_id, order_id, version, occurred_at, event };
            Ok(Decoded { recorded, origin: Origin::Log })
        }
        _ => Err(garbage("`event_id`, `version` and `schema_version` must be given together, from 1 upwards")),
    }
}

/// A message with the six published fields alone is the first event of its order.
fn decode_published_fields(
    text: &str,
    envelope: &Envelope<'_>,
    default_currency: Currency,
) -> Result<Decoded, DecodeError> {
    if envelope.event_type != "OrderCreated" {
        return Err(garbage("only `OrderCreated` may come without `event_id` and `version`"));
    }
    let event = match wire::decode_body("OrderCreated", 1, text, default_currency) {
        Ok(event) => event,
        Err(wire::BodyError::Garbage(reason)) => return Err(DecodeError::Garbage { reason }),
        Err(wire::BodyError::Newer) => return Err(garbage("unknown schema")),
    };
    let OrderEvent::OrderCreated(created) = &event else {
        return Err(garbage("not an `OrderCreated`"));
    };
    let recorded = Recorded {
        event_id: EventId::derived(envelope.order_id, Version::FIRST),
        order_id: envelope.order_id,
        version: Version::FIRST,
        occurred_at: created.created_at,
        event,
    };
    Ok(Decoded { recorded, origin: Origin::PublishedFieldsOnly })
}

/// True when two facts agree in everything that the six published fields tell.
///
/// A writer of those fields alone who repeats itself is a duplicate; one who contradicts is a dead letter.
pub fn same_publication(one: &OrderCreated, other: &OrderCreated) -> bool {
    one.customer_id == other.customer_id
        && one.total == other.total
        && one.created_at == other.created_at
        && one.lines.len() == other.lines.len()
        && one.lines.iter().zip(&other.lines).all(|(a, b)| a.sku == b.sku && a.quantity == b.quantity)
}

/// The first 16 bytes of the SHA-256 of a message: enough to tell a repeated event from another one (rules R9).
pub fn digest(message: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&Sha256::digest(message)[..16]);
    short
}

#[cfg(test)]
mod tests;
