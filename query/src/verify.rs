//! Proves that a generation holds what its source tells, before anybody is served from it (rules R11).
//!
//! Two things are compared. The events: the source is read once more, and the distinct events in it must be those of
//! `order_history`, byte for byte. The rows: the history is folded once more by the rules of the domain, without any code of
//! the projections, and must add up to the same as the tables. Orders with events that wait are left out on both sides of
//! the first comparison, and counted.

mod fold;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::{Currency, OrderId, Version, schema};
use serde::Serialize;
use thiserror::Error;

use crate::intake::{Digest, Incoming, Meaning};
use crate::projections::orders::OrderRow;
use crate::store::digest::{Digests, TableDigest};
use crate::store::{self, Store};
use fold::{Expected, order_facts};

/// Why a generation is not what its source tells.
#[derive(Debug, Error)]
pub enum Error {
    /// It holds something else.
    #[error("{what}: {expected} expected, {found} found")]
    Differs {
        /// What was compared.
        what: String,
        /// By the independent reading.
        expected: String,
        /// In the generation.
        found: String,
    },
    /// It cannot be read.
    #[error("the generation cannot be read")]
    Store(#[from] store::Error),
}

/// What a verification counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Distinct events, all of them applied.
    pub events: u64,
    /// Orders with events that wait, which are in the rows as far as they are applied.
    pub orders_waiting: u64,
    /// The digest of each table: rows, and the sum of their hashes in hexadecimal digits.
    pub tables: BTreeMap<&'static str, (u64, String)>,
}

/// The digests as they are shown.
pub fn shown(digests: &Digests) -> BTreeMap<&'static str, (u64, String)> {
    digests.iter().map(|(name, digest)| (*name, (digest.rows, format!("{:032x}", digest.sum)))).collect()
}

/// The distinct events of a source, each order's in the order of its versions. Keeps about 40 bytes per order.
#[derive(Debug, Default)]
pub struct SourceEvents {
    left_out: BTreeSet<OrderId>,
    last: HashMap<OrderId, u32>,
    ahead: BTreeMap<(OrderId, u32), Digest>,
    sum: TableDigest,
}

impl SourceEvents {
    /// Nothing yet; the orders of `store` that have events which wait are left out.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn of(store: &Store) -> Result<Self, store::Error> {
        Ok(Self { left_out: store.stopped_orders().await?, ..Self::default() })
    }

    /// The orders that are left out.
    pub fn left_out(&self) -> impl Iterator<Item = OrderId> {
        self.left_out.iter().copied()
    }

    /// The last event of each order, up to which there is no hole.
    pub fn last_versions(&self) -> impl Iterator<Item = (OrderId, Version)> {
        self.last.iter().map(|(order_id, last)| (*order_id, Version(*last)))
    }

    /// One more record of the source.
    ///
    /// # Errors
    ///
    /// When an event cannot be hashed.
    pub fn see(&mut self, incoming: &Incoming) -> Result<(), store::Error> {
        let Meaning::Event { recorded, .. } = &incoming.meaning else { return Ok(()) };
        let order_id = recorded.order_id;
        if self.left_out.contains(&order_id) {
            return Ok(());
        }
        let last = self.last.entry(order_id).or_default();
        if recorded.version.0 <= *last {
            return Ok(());
        }
        self.ahead.entry((order_id, recorded.version.0)).or_insert(incoming.digest);
        while let Some(digest) = self.ahead.remove(&(order_id, *last + 1)) {
            *last += 1;
            self.sum.add(&(order_id.0, *last, digest))?;
        }
        Ok(())
    }
}

/// Compares a generation with its source.
///
/// # Errors
///
/// [`Error::Differs`] naming the first difference; otherwise when the database fails.
pub async fn verify(store: &Store, source: &SourceEvents, currency: Currency) -> Result<Report, Error> {
    if let Some(((order_id, version), _digest)) = source.ahead.first_key_value() {
        let what = format!("events of order {order_id} before version {version}");
        return Err(Error::Differs { what, expected: "all".to_owned(), found: "a hole".to_owned() });
    }
    let (mut events, mut expected) = (TableDigest::default(), Expected::default());
    let left_out = &source.left_out;
    store
        .walk_history(|(id, version, _event_id, _event_type, _at, digest, message, ..)| {
            let digest: Digest = digest.try_into().map_err(|_wrong| corrupt("a digest of another length"))?;
            let decoded = schema::decode(message.as_bytes(), currency).map_err(store::Error::corrupt("an event"))?;
            let recorded = decoded.recorded;
            if id != recorded.order_id.0.as_bytes() || version != i64::from(recorded.version.0) {
                return Err(corrupt("an event under another order's name"));
            }
            if !left_out.contains(&recorded.order_id) {
                events.add(&(recorded.order_id.0, recorded.version.0, digest))?;
            }
            if schema::digest(message.as_bytes()) != digest {
                return Err(corrupt("a message that is not the one that was digested"));
            }
            Ok(expected.see(&recorded)?)
        })
        .await?;
    same("events", source.sum, events)?;
    let expected = expected.digests().map_err(store::Error::from)?;
    let mut found = store.digests().await?;
    let tables = shown(&found);
    found.insert("orders", orders(store).await?);
    for (name, expected) in expected {
        same(name, expected, found.get(name).copied().unwrap_or_default())?;
    }
    Ok(Report { events: events.rows, orders_waiting: u64::try_from(left_out.len()).unwrap_or(u64::MAX), tables })
}

/// The facts of the stored orders, from their columns and their documents, which have to agree.
async fn orders(store: &Store) -> Result<TableDigest, store::Error> {
    let mut found = TableDigest::default();
    store
        .walk_orders(|(id, customer_id, status, currency, total_minor, version, created_at, document)| {
            let row = OrderRow::from_document(&document).map_err(store::Error::corrupt("an order"))?;
            let columns = (id, customer_id.as_str(), status.as_str(), currency, total_minor, version, created_at);
            let told = (
                row.order_id.0.as_bytes().to_vec(),
                row.customer_id.as_str(),
                row.status.as_str(),
                String::from(row.total.currency()),
                row.total.minor(),
                i64::from(row.version.0),
                row.created_at.timestamp_micros(),
            );
            if columns != told {
                return Err(corrupt("an order whose document and columns differ"));
            }
            let who = (row.customer_id.as_str(), row.status, row.total);
            let Version(version) = row.version;
            found.add(&order_facts(row.order_id, who, version, created_at, &row.lines))?;
            Ok(())
        })
        .await?;
    Ok(found)
}

fn same(what: &str, expected: TableDigest, found: TableDigest) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    let told = |digest: TableDigest| format!("{} rows that add up to {:032x}", digest.rows, digest.sum);
    Err(Error::Differs { what: what.to_owned(), expected: told(expected), found: told(found) })
}

fn corrupt(what: &'static str) -> store::Error {
    store::Error::corrupt(what)("it is not what this program writes")
}
