//! From a record of the topic to an event, or to the reason why it is none.

use std::fmt;

use chassis::kafka::consumer::Message;
use domain::schema::{self, DecodeError, Origin};
use domain::{Currency, OrderEvent, OrderId, Recorded, Version};
use uuid::Uuid;

use crate::cores::{self, apart};

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which partition.
    pub partition: i32,
    /// Which offset in it.
    pub offset: i64,
}

/// The headers of a record, in order. Ours are text; what is not is shown with replacement characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// Headers as they are kept: as text that every database can hold.
    pub fn told(headers: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        Self(headers.into_iter().map(|(name, value)| (storable(name), storable(value))).collect())
    }

    /// The first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _value)| found == name).map(|(_name, value)| value.as_str())
    }

    /// The stored form: a JSON array of `[name, value]`.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text).map(Self)
    }
}

/// A record: read from the topic, or kept from an earlier reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub payload: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
}

impl Record {
    /// What tells this record's value from another's (rules R9); that of no bytes where there is no value.
    pub fn digest(&self) -> Digest {
        schema::digest(self.payload.as_deref().unwrap_or_default())
    }

    /// The value as text; empty where it is none. Whatever was decoded is text.
    pub fn text(&self) -> &str {
        self.payload.as_deref().and_then(|payload| str::from_utf8(payload).ok()).unwrap_or_default()
    }
}

impl From<Message> for Record {
    fn from(message: Message) -> Self {
        Self {
            position: Position { partition: message.partition, offset: message.offset },
            key: message.key,
            payload: message.payload,
            headers: Headers::told(message.headers.into_iter().map(|(name, value)| (name.into_bytes(), value))),
        }
    }
}

/// The first 16 bytes of a SHA-256.
pub type Digest = [u8; 16];

/// A record with what it means.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The record.
    pub record: Record,
    /// Of the record's value.
    pub digest: Digest,
    /// What it means.
    pub meaning: Meaning,
}

/// What a record means.
#[derive(Debug, Clone)]
pub enum Meaning {
    /// An event that this program understands.
    Event {
        /// The event.
        recorded: Box<Recorded<OrderEvent>>,
        /// Who wrote it.
        origin: Origin,
    },
    /// A sound envelope around something newer than this program.
    Newer {
        /// Whose.
        order_id: OrderId,
        /// Which of its events.
        version: Version,
    },
    /// It can never have come from our relay.
    Garbage {
        /// The stable code.
        reason: Reason,
        /// In words.
        detail: String,
    },
}

impl Meaning {
    /// The order that the record is about, and which of its events it is.
    pub fn subject(&self) -> Option<(OrderId, Version)> {
        match self {
            Self::Event { recorded, .. } => Some((recorded.order_id, recorded.version)),
            Self::Newer { order_id, version } => Some((*order_id, *version)),
            Self::Garbage { .. } => None,
        }
    }
}

/// Why a record became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// It has no value.
    NoValue,
    /// Its value is no message of this service.
    Unreadable,
    /// Its key names another order than its value.
    WrongKey,
    /// An order begins with it that must begin with `OrderCreated`, or a known order is created again.
    OutOfPlace,
    /// It tells the six published fields of a known order, and tells them differently.
    Contradiction,
}

impl Reason {
    /// The stable code.
    pub fn code(self) -> &'static str {
        match self {
            Self::NoValue => "no-value",
            Self::Unreadable => "unreadable",
            Self::WrongKey => "wrong-key",
            Self::OutOfPlace => "out-of-place",
            Self::Contradiction => "contradiction",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl Incoming {
    /// Reads a record. The same record means the same to the same program, so what was kept is read again with the
    /// program of the day.
    pub fn read(record: Record, default_currency: Currency) -> Self {
        let digest = record.digest();
        let meaning = meaning(&record, default_currency);
        Self { record, digest, meaning }
    }

    /// Reads records, keeping their order: many of them on several processors.
    pub async fn read_all(records: Vec<Record>, default_currency: Currency) -> Vec<Self> {
        apart(async { cores::map(records, |record| Self::read(record, default_currency)) }).await
    }

    /// The same, on one processor: another one is at work on the records before.
    pub async fn read_beside(records: Vec<Record>, default_currency: Currency) -> Vec<Self> {
        apart(async { records.into_iter().map(|record| Self::read(record, default_currency)).collect() }).await
    }
}

/// Bytes as text that every database can hold: PostgreSQL's has no NUL.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

/// The same, of bytes that are hardly ever anything else: they are not copied then.
fn storable(bytes: Vec<u8>) -> String {
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => text,
        Ok(text) => shown(text.as_bytes()),
        Err(error) => shown(error.as_bytes()),
    }
}

fn meaning(record: &Record, default_currency: Currency) -> Meaning {
    let Some(payload) = record.payload.as_deref() else {
        return Meaning::Garbage { reason: Reason::NoValue, detail: "the record has no value".to_owned() };
    };
    let meaning = match schema::decode(payload, default_currency) {
        Ok(schema::Decoded { recorded, origin }) => Meaning::Event { recorded: Box::new(recorded), origin },
        Err(DecodeError::Newer { order_id, version, .. }) => Meaning::Newer { order_id, version },
        Err(error @ DecodeError::Garbage { .. }) => {
            return Meaning::Garbage { reason: Reason::Unreadable, detail: shown(error.to_string().as_bytes()) };
        }
    };
    match (&record.key, &meaning) {
        (Some(key), Meaning::Event { recorded, origin }) => {
            let foreign = *origin == Origin::PublishedFieldsOnly;
            checked_key(key, recorded.order_id, foreign).unwrap_or_else(|| out_of_place(meaning))
        }
        (Some(key), Meaning::Newer { order_id, .. }) => checked_key(key, *order_id, false).unwrap_or(meaning),
        _ => out_of_place(meaning),
    }
}

/// A key is the order's id. Writers of the six published fields alone may key as they like, but not by another order.
fn checked_key(key: &[u8], order_id: OrderId, foreign: bool) -> Option<Meaning> {
    let named = str::from_utf8(key).ok().and_then(|text| text.parse::<Uuid>().ok());
    let accepted = match named {
        Some(named) => named == order_id.0,
        None => foreign,
    };
    if accepted {
        return None;
    }
    let detail = format!("the key `{}` is not the order {order_id}", shown(key));
    Some(Meaning::Garbage { reason: Reason::WrongKey, detail })
}

/// The first event of an order creates it, and no later one does: our relay cannot have sent anything else.
fn out_of_place(meaning: Meaning) -> Meaning {
    let Meaning::Event { recorded, .. } = &meaning else {
        return meaning;
    };
    let creates = matches!(recorded.event, OrderEvent::OrderCreated(_));
    if creates == (recorded.version == Version::FIRST) {
        return meaning;
    }
    let detail = format!("`{}` cannot be event {} of an order", recorded.event.event_type(), recorded.version);
    Meaning::Garbage { reason: Reason::OutOfPlace, detail }
}
