//! Finding what the topic has lost, and publishing exactly that (rules R7).
//!
//! Acknowledged by Kafka is not on disk, and a topic can be deleted; the event log is the source of truth. One partition is
//! compared at a time, so that memory holds a few bytes per order of one partition.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chassis::kafka::topic::partition_of;
use domain::{OrderId, Version};
use futures_util::TryStreamExt;
use sqlx::postgres::PgConnection;
use sqlx::types::Uuid;

use super::log::{LoggedEvent, event_columns};
use super::term::Term;
use super::topic::PartitionScan;
use super::{Error, Setup, connect, disconnect, take_office};

/// How many orders' events are loaded at a time.
const ORDERS_PER_LOAD: usize = 500;

/// Which versions of an order the topic holds.
#[derive(Debug, Default)]
struct Held {
    /// All from 1 to here.
    through: u32,
    /// And these beyond.
    beyond: BTreeSet<u32>,
}

impl Held {
    fn add(&mut self, version: u32) {
        if version == self.through + 1 {
            self.through = version;
            while self.beyond.remove(&(self.through + 1)) {
                self.through += 1;
            }
        } else if version > self.through {
            self.beyond.insert(version);
        }
    }

    fn has(&self, version: u32) -> bool {
        version <= self.through || self.beyond.contains(&version)
    }
}

/// Takes the relay's office for as long as it takes to make the topic whole. Returns how many events it published.
///
/// # Errors
///
/// The broker's or the database's; nothing is recorded then, and it can be run again.
pub async fn reconcile(setup: &Setup, handover: Duration) -> Result<u64, Error> {
    let mut connection = connect(&setup.connect).await?;
    let mut term = take_office(setup, &mut connection, handover).await?;
    let restored = term.restore(&mut connection, "asked to").await;
    term.end(&mut connection).await?;
    disconnect(connection).await;
    restored
}

/// Publishes what is in the log and published according to the progress, but not in the topic.
pub(super) async fn restore(term: &mut Term, connection: &mut PgConnection) -> Result<u64, Error> {
    // Live publishing will send these; sending them here as well would only repeat them.
    let unpublished: HashSet<(Uuid, i32)> = term.progress().unpublished(connection).await?.into_iter().collect();
    // The log is read on a session of its own, so that the lease's heart beats meanwhile.
    let mut reader = connect(&term.setup().connect).await?;
    let mut restored = 0;
    for partition in 0..term.setup().topic.partitions {
        let held = held_by_topic(term, connection, partition).await?;
        let incomplete = incomplete_orders(term, connection, &mut reader, partition, &held).await?;
        for orders in incomplete.chunks(ORDERS_PER_LOAD) {
            let mut missing = load(&mut reader, orders).await?;
            missing.retain(|event| {
                let version = event.version();
                let is_held = held.get(&event.order_id().0).is_some_and(|held| held.has(version.0));
                let position = (event.order_id().0, i32::try_from(version.0).unwrap_or_default());
                !is_held && !unpublished.contains(&position)
            });
            for batch in missing.chunks(term.setup().limits.batch_events_max) {
                stay_in_office(term, connection).await?;
                term.deliver(batch).await?;
                restored += batch.len() as u64;
            }
        }
    }
    disconnect(reader).await;
    Ok(restored)
}

async fn stay_in_office(term: &mut Term, connection: &mut PgConnection) -> Result<(), Error> {
    // Whoever wants the office waits until this is done: half a restoration helps nobody.
    let _wanted = term.keep(connection).await?;
    Ok(())
}

async fn held_by_topic(
    term: &mut Term,
    connection: &mut PgConnection,
    partition: i32,
) -> Result<HashMap<Uuid, Held>, Error> {
    let setup = term.setup();
    let mut scan = PartitionScan::open(&setup.brokers, &setup.topic, partition).await?;
    let mut held: HashMap<Uuid, Held> = HashMap::new();
    loop {
        let messages = scan.next().await?;
        if messages.is_empty() {
            return Ok(held);
        }
        for (order_id, version) in messages.iter().filter_map(|message| identity(message.payload.as_deref()?)) {
            held.entry(order_id.0).or_default().add(version.0);
        }
        stay_in_office(term, connection).await?;
    }
}

/// Whose event a record is. What is not ours, or has no identity, is nobody's here.
pub(crate) fn identity(payload: &[u8]) -> Option<(OrderId, Version)> {
    #[derive(serde::Deserialize)]
    struct Identity {
        order_id: OrderId,
        version: Version,
    }
    let identity: Identity = serde_json::from_slice(payload).ok()?;
    Some((identity.order_id, identity.version))
}

/// Orders of a partition whose last version the topic does not hold, or holds with a hole before it.
async fn incomplete_orders(
    term: &mut Term,
    connection: &mut PgConnection,
    reader: &mut PgConnection,
    partition: i32,
    held: &HashMap<Uuid, Held>,
) -> Result<Vec<Uuid>, Error> {
    const ORDERS_PER_HEARTBEAT: usize = 10_000;
    let partitions = term.setup().topic.partitions;
    let mut orders = sqlx::query_as::<_, (Uuid, i32)>("select order_id, version from orders").fetch(reader);
    let mut incomplete = Vec::new();
    let mut seen: usize = 0;
    while let Some((order_id, version)) = orders.try_next().await? {
        seen += 1;
        if seen.is_multiple_of(ORDERS_PER_HEARTBEAT) {
            stay_in_office(term, connection).await?;
        }
        if partition_of(order_id.to_string().as_bytes(), partitions) != partition {
            continue;
        }
        let through = held.get(&order_id).map_or(0, |held| held.through);
        if i64::from(through) < i64::from(version) {
            incomplete.push(order_id);
        }
    }
    Ok(incomplete)
}

async fn load(reader: &mut PgConnection, orders: &[Uuid]) -> Result<Vec<LoggedEvent>, Error> {
    const LOAD: &str = concat!(
        "select 0::int8 as seq, ",
        event_columns!(),
        " from events e where order_id = any($1) order by order_id, version"
    );
    Ok(sqlx::query_as(LOAD).bind(orders).fetch_all(reader).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_knows_its_holes() {
        let mut held = Held::default();
        for version in [1, 2, 4, 2, 6] {
            held.add(version);
        }
        assert_eq!(held.through, 2);
        assert!(held.has(4) && held.has(6) && !held.has(3) && !held.has(5));
        held.add(3);
        assert_eq!(held.through, 4);
        held.add(5);
        assert_eq!((held.through, held.beyond.len()), (6, 0));
    }
}
