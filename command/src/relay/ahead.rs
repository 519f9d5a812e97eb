//! A topic that holds events which the log does not have, or has otherwise: the log was turned back.
//!
//! A restored backup, a standby that had not received the last commits, a disk put back to an older state, another database
//! altogether: the log goes on from an older state then, and would publish other events under versions that the topic has.
//! Readers would see two histories of one order, and no later repair could take that back. So the relay publishes nothing,
//! says which orders, and looks again from time to time (rules R20).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::postgres::PgConnection;
use sqlx::types::Uuid;

use super::Error;
use super::reconcile::Why;
use super::term::{OFFSET_UNKNOWN, Term};
use super::topic::{Published, Scan};

/// With so many orders the case is clear.
const ORDERS_MAX: usize = 1_000;
/// How many of them are named.
const ORDERS_NAMED: usize = 5;

/// The orders of which the topic has more than the log, or something else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Each with the first version that was found.
    orders: BTreeMap<Uuid, i32>,
}

impl Ahead {
    /// How many orders were found; there may be more than 1,000.
    pub fn orders(&self) -> usize {
        self.orders.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    /// True when there is no use in looking for more.
    pub(super) fn is_clear(&self) -> bool {
        self.orders.len() >= ORDERS_MAX
    }

    /// Adds those of the published events that the log does not have. Ask after they were read from the topic: what is
    /// published was committed before.
    pub(super) async fn compare(
        &mut self,
        connection: &mut PgConnection,
        published: &[Published],
    ) -> Result<(), Error> {
        let found: Vec<(Uuid, i32)> = sqlx::query_as(
            "select p.order_id, min(p.version)
             from unnest($1::uuid[], $2::int4[], $3::uuid[]) as p (order_id, version, event_id)
             left join events e on e.order_id = p.order_id and e.version = p.version
             where e.event_id is distinct from p.event_id group by p.order_id",
        )
        .bind(published.iter().map(|event| event.order_id).collect::<Vec<_>>())
        .bind(published.iter().map(|event| event.version).collect::<Vec<_>>())
        .bind(published.iter().map(|event| event.event_id).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
        for (order, version) in found {
            let first = self.orders.entry(order).or_insert(version);
            *first = version.min(*first);
        }
        Ok(())
    }
}

impl fmt::Display for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let least = if self.is_clear() { "at least " } else { "" };
        write!(f, "the topic is ahead of the log by {least}{} orders:", self.orders.len())?;
        for (n, (order, version)) in self.orders.iter().take(ORDERS_NAMED).enumerate() {
            let comma = if n > 0 { "," } else { "" };
            write!(f, "{comma} {order} at version {version}")?;
        }
        if self.orders.len() > ORDERS_NAMED { f.write_str(", …") } else { Ok(()) }
    }
}

/// How topic, progress and log go together at the beginning of a term.
#[derive(Debug)]
pub(super) enum Finding {
    /// The topic ends with what the progress knows, or with events of the log whose acknowledgement was not recorded.
    Known,
    /// The topic has events that the log does not have.
    Ahead(Ahead),
    /// The topic is not the one that the progress knows.
    Lost(Why),
}

/// Reads the end of the topic, from the last acknowledged record of each partition on: mostly these records alone.
pub(super) async fn examine(term: &mut Term, connection: &mut PgConnection) -> Result<Finding, Error> {
    let ends = term.ends().await?;
    let next_offsets = term.progress().next_offsets.clone();
    if next_offsets.contains(&OFFSET_UNKNOWN) {
        return Ok(Finding::Lost(Why::Unknown));
    }
    let (mut ranges, mut anchors) = (Vec::new(), BTreeSet::new());
    for ((partition, (low, high)), next) in (0..).zip(ends).zip(next_offsets) {
        if high < next {
            return Ok(Finding::Lost(Why::Shorter));
        }
        if low < next {
            anchors.insert((partition, next - 1));
        }
        ranges.push((partition, low.max(next - 1), high));
    }
    let mut scan = Scan::open(&term.setup().brokers, &term.setup().topic, ranges.into_iter())?;
    let mut ahead = Ahead::default();
    while !ahead.is_clear() {
        let messages = scan.next().await?;
        if messages.is_empty() {
            break;
        }
        let mut published = Vec::with_capacity(messages.len());
        for message in &messages {
            if let Some(event) = Published::read(message) {
                anchors.remove(&(message.partition, message.offset));
                published.push(event);
            }
        }
        ahead.compare(connection, &published).await?;
        term.stay(connection).await?;
    }
    Ok(match (ahead.is_empty(), anchors.is_empty()) {
        (false, _) => Finding::Ahead(ahead),
        (true, false) => Finding::Lost(Why::Replaced),
        (true, true) => Finding::Known,
    })
}
