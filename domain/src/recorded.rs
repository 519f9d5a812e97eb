//! An event with everything that identifies it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{EventId, OrderId, Version};

/// An event of an order as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<E> {
    /// The event's identity, for ever.
    pub event_id: EventId,
    /// Whose event it is.
    pub order_id: OrderId,
    /// Its place in the order's history: 1, 2, 3 …
    pub version: Version,
    /// When it happened, by the clock of the service that decided it. Never used to order events.
    pub occurred_at: DateTime<Utc>,
    /// What happened.
    pub event: E,
}

/// Who and what caused an event: stored beside it and carried in the record's headers, not in the message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Who asked, when known.
    pub actor: Option<String>,
    /// The conversation that this event belongs to.
    pub correlation_id: Option<String>,
    /// The request or event that caused it directly.
    pub causation_id: Option<String>,
    /// W3C trace context of the request.
    pub traceparent: Option<String>,
}
