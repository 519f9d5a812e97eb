//! Finding what the topic does not have, and publishing exactly that (rules R7).
//!
//! Acknowledged by Kafka is not on disk, a topic can be deleted, and a moved database does not know what is published; the
//! event log is the source of truth. It is read as of one moment. Whatever it has then is on the topic afterwards, each
//! order in order, and live publishing goes on from that moment: so no version comes before an earlier one.
//!
//! One partition is compared at a time, so that memory holds a few bytes per order of one partition.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use chassis::kafka::topic::partition_of;
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::types::Uuid;

use super::ahead::Ahead;
use super::log::{LoggedEvent, event_columns};
use super::progress::Snapshot;
use super::term::Term;
use super::topic::{Published, Scan};
use super::{Error, Setup, connect, disconnect, take_office};

/// How many orders' events are loaded at a time.
const ORDERS_PER_LOAD: usize = 500;
/// How many orders are compared with the log at a time.
const ORDERS_PER_COMPARISON: usize = 5_000;

/// Why the log is compared with the topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// An operator wishes it.
    Asked,
    /// What the topic holds is not known: the database was moved, or a comparison was cut short.
    Unknown,
    /// An acknowledged offset is lower than one before it.
    Backwards,
    /// The topic ends before what was acknowledged.
    Shorter,
    /// Where the last acknowledged event was there is another record.
    Replaced,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked to",
            Self::Unknown => "it is not known what the topic holds",
            Self::Backwards => "an acknowledged offset is lower than one before it",
            Self::Shorter => "the topic ends before what was acknowledged",
            Self::Replaced => "where the last acknowledged event was there is another record",
        })
    }
}

/// What the topic holds of an order.
#[derive(Debug)]
struct Held {
    /// Read from the beginning, with all repeats, it tells the versions 1 to here in order.
    through: i32,
    /// The event with the highest version.
    last: Published,
}

impl Held {
    fn of(event: Published) -> Self {
        Self { through: i32::from(event.version == 1), last: event }
    }

    fn add(&mut self, event: Published) {
        if event.version == self.through + 1 {
            self.through = event.version;
        }
        if event.version > self.last.version {
            self.last = event;
        }
    }
}

/// What came of a reconciliation.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The topic holds events that the log does not have: nothing was published.
    Ahead(Ahead),
    /// The topic holds all that the log had at one moment.
    Whole {
        /// How many events had to be published.
        restored: u64,
        /// That moment.
        done: Snapshot,
        /// Per partition, the offset after the last event of ours.
        next_offsets: Vec<i64>,
    },
}

/// Takes the relay's office for as long as it takes to make the topic whole. Returns how many events it published.
///
/// # Errors
///
/// The broker's or the database's, and [`Error::Ahead`]; it can be run again.
pub async fn reconcile(setup: &Setup, handover: Duration) -> Result<u64, Error> {
    let mut connection = connect(&setup.connect).await?;
    let mut term = take_office(setup, &mut connection, handover).await?;
    let restored = match term.restored() {
        // Taking the office has done it.
        Some(restored) => Ok(restored),
        None => term.restore(&mut connection, Why::Asked).await,
    };
    let ahead = term.ahead().cloned();
    term.end(&mut connection).await?;
    disconnect(connection).await;
    match (restored, ahead) {
        (Ok(_nothing), Some(ahead)) => Err(Error::Ahead(ahead)),
        (restored, _) => restored,
    }
}

/// Publishes what the log has and the topic does not, unless the topic is ahead of the log.
pub(super) async fn restore(term: &mut Term, connection: &mut PgConnection) -> Result<Outcome, Error> {
    // Nothing is published before all of the topic was looked at: this may be the wrong database.
    let mut ahead = Ahead::default();
    for partition in 0..term.setup().topic.partitions {
        let (held, _next) = held_by_topic(term, connection, partition).await?;
        let last: Vec<Published> = held.into_values().map(|held| held.last).collect();
        for orders in last.chunks(ORDERS_PER_COMPARISON) {
            if !ahead.is_clear() {
                ahead.compare(connection, orders).await?;
                term.stay(connection).await?;
            }
        }
    }
    if !ahead.is_empty() {
        return Ok(Outcome::Ahead(ahead));
    }
    // The log is read on a session of its own, so that the lease's heart beats meanwhile.
    let mut log = connect(&term.setup().connect).await?;
    let done = one_moment(&mut log).await?;
    let mut restored = 0;
    let mut next_offsets = Vec::new();
    for partition in 0..term.setup().topic.partitions {
        let (published, next) = restore_partition(term, connection, &mut log, partition).await?;
        restored += published;
        next_offsets.push(next);
    }
    disconnect(log).await;
    Ok(Outcome::Whole { restored, done, next_offsets })
}

/// Makes a session see the log as it is now, for as long as it takes.
async fn one_moment(log: &mut PgConnection) -> Result<Snapshot, Error> {
    sqlx::raw_sql(
        "set statement_timeout = '30min'; set idle_in_transaction_session_timeout = '30min';
         begin isolation level repeatable read read only",
    )
    .execute(&mut *log)
    .await?;
    let moment = sqlx::query_scalar("select pg_current_snapshot()::text").fetch_one(log).await?;
    Ok(Snapshot::parse(moment)?)
}

/// Returns how many events were published, and the offset after the last event of ours.
async fn restore_partition(
    term: &mut Term,
    connection: &mut PgConnection,
    log: &mut PgConnection,
    partition: i32,
) -> Result<(u64, i64), Error> {
    let (held, mut next) = held_by_topic(term, connection, partition).await?;
    let incomplete = incomplete_orders(term, connection, log, partition, &held).await?;
    let mut restored = 0;
    for orders in incomplete.chunks(ORDERS_PER_LOAD) {
        let mut missing = load(log, orders).await?;
        // From the first hole on, so that the history is told in order.
        missing.retain(|event| {
            let through = held.get(&event.order_id().0).map_or(0, |held| held.through);
            i64::from(event.version().0) > i64::from(through)
        });
        for batch in missing.chunks(term.setup().limits.batch_events_max) {
            term.stay(connection).await?;
            for delivered in term.deliver(batch).await? {
                if delivered.offset < next {
                    return Err(Error::TopicReplaced);
                }
                next = delivered.offset + 1;
            }
            restored += batch.len() as u64;
        }
    }
    Ok((restored, next))
}

/// What a partition holds of each order, and the offset after the last event of ours.
async fn held_by_topic(
    term: &mut Term,
    connection: &mut PgConnection,
    partition: i32,
) -> Result<(HashMap<Uuid, Held>, i64), Error> {
    let mut scan = Scan::partition(&term.setup().brokers, &term.setup().topic, partition).await?;
    let mut held: HashMap<Uuid, Held> = HashMap::new();
    let mut next = 0;
    loop {
        let messages = scan.next().await?;
        if messages.is_empty() {
            return Ok((held, next));
        }
        for message in &messages {
            let Some(event) = Published::read(message) else { continue };
            next = message.offset + 1;
            held.entry(event.order_id).and_modify(|held| held.add(event)).or_insert_with(|| Held::of(event));
        }
        term.stay(connection).await?;
    }
}

/// Orders of a partition whose history the topic does not tell to its end.
async fn incomplete_orders(
    term: &mut Term,
    connection: &mut PgConnection,
    log: &mut PgConnection,
    partition: i32,
    held: &HashMap<Uuid, Held>,
) -> Result<Vec<Uuid>, Error> {
    const ORDERS_PER_HEARTBEAT: usize = 10_000;
    let partitions = term.setup().topic.partitions;
    let mut orders = sqlx::query_as::<_, (Uuid, i32)>("select order_id, version from orders").fetch(log);
    let mut incomplete = Vec::new();
    let mut seen: usize = 0;
    while let Some((order_id, version)) = orders.try_next().await? {
        seen += 1;
        if seen.is_multiple_of(ORDERS_PER_HEARTBEAT) {
            term.stay(connection).await?;
        }
        if partition_of(order_id.to_string().as_bytes(), partitions) != partition {
            continue;
        }
        if held.get(&order_id).map_or(0, |held| held.through) < version {
            incomplete.push(order_id);
        }
    }
    Ok(incomplete)
}

async fn load(log: &mut PgConnection, orders: &[Uuid]) -> Result<Vec<LoggedEvent>, Error> {
    const LOAD: &str = concat!(
        "select 0::int8 as seq, ",
        event_columns!(),
        " from events e where order_id = any($1) order by order_id, version"
    );
    Ok(sqlx::query_as(LOAD).bind(orders).fetch_all(log).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_what_is_told_in_order() {
        let event = |version| Published { order_id: Uuid::nil(), version, event_id: Uuid::max() };
        let mut held = Held::of(event(1));
        for version in [2, 4, 2, 6] {
            held.add(event(version));
        }
        assert_eq!((held.through, held.last), (2, event(6)));
        held.add(event(3));
        assert_eq!(held.through, 3, "the fourth was told too early");
        held.add(event(4));
        assert_eq!(held.through, 4);
        assert_eq!(Held::of(event(3)).through, 0);
    }
}
