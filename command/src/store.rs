//! The event log and the aggregate rows in PostgreSQL: what a batch loads, and the one message that writes it all.

mod append;

use std::collections::BTreeMap;

use domain::order::Order;
use domain::{Currency, Metadata, OrderEvent, OrderId, Recorded, Version, fold, schema};
use sqlx::PgConnection;
use sqlx::types::Uuid;
use thiserror::Error;

use crate::idempotency::{Key, Reply};
pub(crate) use append::{Appended, Refusal, append, rehearse};

/// Why the store could not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The database's own words.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// What is stored is not what this program wrote.
    #[error("order {order_id} is stored in a way that cannot be read")]
    Corrupt {
        /// Whose.
        order_id: OrderId,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An order as far as its events are known.
#[derive(Debug, Clone, Default)]
pub struct Aggregate {
    /// How many events it has.
    pub version: Version,
    /// The fold of them.
    pub state: Order,
}

/// An event that is to be appended, with the text that is stored and published.
#[derive(Debug)]
pub(crate) struct NewEvent {
    pub(crate) recorded: Recorded<OrderEvent>,
    pub(crate) payload: String,
    pub(crate) metadata: Metadata,
}

/// Everything that one transaction writes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    pub(crate) events: Vec<NewEvent>,
    /// The aggregates that the events lead to, in the order of their keys, and the versions that they come from.
    pub(crate) aggregates: BTreeMap<OrderId, (Version, Aggregate)>,
    /// Answers to remember under their keys.
    pub(crate) replies: Vec<(Key, Reply)>,
}

impl Writes {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.replies.is_empty()
    }
}

type AggregateRow = (Uuid, i32, String, i16);

/// Loads aggregates; one that does not exist has no events. Nothing is locked: what is written later says on which version it was
/// decided.
pub(crate) async fn load(
    connection: &mut PgConnection,
    orders: &[OrderId],
    default_currency: Currency,
) -> Result<Vec<(OrderId, Aggregate)>, Error> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.0).collect();
    let rows: Vec<AggregateRow> =
        sqlx::query_as("select order_id, version, state, state_revision from orders where order_id = any($1)")
            .bind(&ids)
            .fetch_all(&mut *connection)
            .await?;
    let mut aggregates: BTreeMap<OrderId, Aggregate> =
        orders.iter().map(|order| (*order, Aggregate::default())).collect();
    for row in rows {
        let order_id = OrderId(row.0);
        aggregates.insert(order_id, read_aggregate(connection, row, default_currency).await?);
    }
    Ok(aggregates.into_iter().collect())
}

/// The stored state, or the fold of the events when another revision of the code wrote it.
async fn read_aggregate(
    connection: &mut PgConnection,
    (order_id, version, state, revision): AggregateRow,
    default_currency: Currency,
) -> Result<Aggregate, Error> {
    let order_id = OrderId(order_id);
    let corrupt = |source: Box<dyn std::error::Error + Send + Sync>| Error::Corrupt { order_id, source };
    if revision != Order::STATE_REVISION {
        let history = history(connection, order_id, default_currency).await?;
        let version = history.last().map(|recorded| recorded.version).unwrap_or_default();
        let state = fold::<Order>(history.iter().map(|recorded| &recorded.event));
        return Ok(Aggregate { version, state });
    }
    let state = serde_json::from_str(&state).map_err(|error| corrupt(error.into()))?;
    let version = Version::try_from(i64::from(version)).map_err(|error| corrupt(error.into()))?;
    Ok(Aggregate { version, state })
}

/// All events of one order, oldest first.
///
/// # Errors
///
/// The database's, or an event that cannot be decoded.
pub async fn history(
    connection: &mut PgConnection,
    order_id: OrderId,
    default_currency: Currency,
) -> Result<Vec<Recorded<OrderEvent>>, Error> {
    let payloads: Vec<String> = sqlx::query_scalar("select payload from events where order_id = $1 order by version")
        .bind(order_id.0)
        .fetch_all(connection)
        .await?;
    payloads
        .iter()
        .map(|payload| {
            schema::decode(payload.as_bytes(), default_currency)
                .map(|decoded| decoded.recorded)
                .map_err(|error| Error::Corrupt { order_id, source: error.into() })
        })
        .collect()
}
