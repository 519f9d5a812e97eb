//! Events as the relay reads them: the stored text and everything that goes into a record's headers.

use std::borrow::Cow;

use chassis::kafka::producer::Outgoing;
use chrono::{DateTime, SecondsFormat, Utc};
use domain::{OrderId, Version};
use sqlx::PgConnection;
use sqlx::types::Uuid;

/// The columns of a [`LoggedEvent`] but for `seq`, from `events e`.
macro_rules! event_columns {
    () => {
        "e.order_id, e.version, e.event_id, e.event_type, e.schema_version, e.payload, e.occurred_at, e.actor, \
         e.correlation_id, e.causation_id, e.traceparent"
    };
}
pub(crate) use event_columns;

/// One row of the event log.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct LoggedEvent {
    /// Its place in the outbox; zero when it was not read through the outbox.
    pub seq: i64,
    order_id: Uuid,
    version: i32,
    event_id: Uuid,
    event_type: String,
    schema_version: i16,
    /// The exact text of the message.
    pub payload: String,
    occurred_at: DateTime<Utc>,
    actor: Option<String>,
    correlation_id: Option<String>,
    causation_id: Option<String>,
    traceparent: Option<String>,
}

impl LoggedEvent {
    /// Whose event it is.
    pub fn order_id(&self) -> OrderId {
        OrderId(self.order_id)
    }

    /// Its place in the order's history.
    pub fn version(&self) -> Version {
        Version::try_from(i64::from(self.version)).unwrap_or_default()
    }

    /// The record for the topic, with CloudEvents 1.0 attributes in binary mode beside the untouched payload.
    ///
    /// `key` is the order's id as text, so that an order's events stay in one partition and in order.
    pub fn record<'e>(&'e self, key: &'e str) -> Outgoing<'e> {
        let mut headers: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(13);
        headers.extend([
            ("content-type", "application/json".into()),
            ("ce_specversion", "1.0".into()),
            ("ce_id", self.event_id.to_string().into()),
            ("ce_source", "/order-command".into()),
            ("ce_type", format!("orders.{}.v{}", self.event_type, self.schema_version).into()),
            ("ce_time", self.occurred_at.to_rfc3339_opts(SecondsFormat::AutoSi, true).into()),
            ("ce_subject", key.into()),
            ("ce_partitionkey", key.into()),
            ("ce_sequence", self.version.to_string().into()),
        ]);
        let optional = [
            ("ce_actor", &self.actor),
            ("ce_correlationid", &self.correlation_id),
            ("ce_causationid", &self.causation_id),
            ("traceparent", &self.traceparent),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?.into()))));
        Outgoing { key: key.as_bytes(), payload: self.payload.as_bytes(), headers, partition: None }
    }
}

/// A page of the log in the order of its key: first by order, then by version.
///
/// It ends after `events_max` events, or with the event that fills it up to `bytes_max` bytes. The database counts them, so that
/// it sends no more than that.
///
/// Events that are committed behind the place where a reader is are not on its later pages. Whoever wants all of the log
/// notes the topic's end offsets first, reads the log, and goes on from those offsets.
///
/// # Errors
///
/// The database's.
pub async fn page(
    connection: &mut PgConnection,
    after: (Uuid, i32),
    events_max: u32,
    bytes_max: u32,
) -> Result<Page, sqlx::Error> {
    const PAGE: &str = concat!(
        "select 0::int8 as seq, ",
        event_columns!(),
        " from (
            select *, sum(octet_length(payload) + $5) over (order by order_id, version rows unbounded preceding) as bytes
            from events where (order_id, version) > ($1, $2) order by order_id, version limit $3
        ) e where bytes - octet_length(payload) - $5 < $4 order by order_id, version"
    );
    let events: Vec<LoggedEvent> = sqlx::query_as(PAGE)
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(events_max))
        .bind(i64::from(bytes_max))
        .bind(i32::from(HEADERS_BYTES))
        .fetch_all(connection)
        .await?;
    let bytes: usize = events.iter().map(|event| event.payload.len() + usize::from(HEADERS_BYTES)).sum();
    let is_full = events.len() >= events_max as usize || bytes >= bytes_max as usize;
    Ok(Page { events, is_full })
}

/// Some of the log.
#[derive(Debug)]
pub struct Page {
    /// The events.
    pub events: Vec<LoggedEvent>,
    /// Whether there may be more behind them.
    pub is_full: bool,
}

/// What the headers of an event are counted as, about what they take.
const HEADERS_BYTES: u16 = 700;
