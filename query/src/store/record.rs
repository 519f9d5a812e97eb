//! Rows as a database hands them over, and what they mean: the same columns from either database.

use std::error::Error as StdError;
use std::str::FromStr;

use domain::{Currency, OrderId, Version};
use uuid::Uuid;

use super::Error;
use super::answer::{
    Backlog, CancellationTotals, CustomerTotals, DayTotals, Detail, Event, ProductTotals, Prospect, Waiting,
};
use crate::checkpoint::{Anchor, Checkpoint, Checkpoints, Origin};
use crate::gate::Cause;
use crate::intake::{Digest, Headers, Position};
use crate::parked::Parked;
use crate::projection::Totals;
use crate::projections::cancellations::{Cancellations, Reason};
use crate::projections::customers::{CustomerRow, Customers};
use crate::projections::daily_sales::{DailySales, DayRow};
use crate::projections::orders::OrderRow;
use crate::projections::product_demand::{DemandRow, ProductDemand};

/// An id as it is stored: its 16 bytes.
pub(super) type Id = Vec<u8>;

/// `customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id`.
pub(super) type CustomerRecord = (String, String, i64, i64, String, i64, Id);
/// `day, currency, orders, cancellations, revenue_minor`.
pub(super) type DayRecord = (i64, String, i64, i64, String);
/// `sku, currency, units, revenue_minor`.
pub(super) type ProductRecord = (String, String, i64, String);
/// `day, customer_id, reason, orders`.
pub(super) type CancellationRecord = (i64, String, String, i64);
/// `order_id, version, digest, cause, partition_id, record_offset, message, headers`, and whether it is discarded.
pub(super) type ParkedRecord = (Id, i64, Vec<u8>, String, i32, i64, String, String, bool);
/// `partition_id, topic, cluster_id, next_offset, digest, proven_offset, proven_digest`.
pub(super) type CheckpointRecord = (i32, String, String, i64, Vec<u8>, i64, Vec<u8>);
/// `version, document`, and the `cause` and `version` of what waits.
pub(super) type DetailRecord = (i64, String, Option<String>, Option<i64>);
/// `version, event_id, event_type, occurred_at, message, actor, correlation_id, causation_id`.
pub(super) type EventRecord = (i64, Id, String, i64, String, Option<String>, Option<String>, Option<String>);
/// `count` and oldest time of the dead letters, then of what waits. `$1` is the most to count, in either database.
pub(super) const BACKLOG: &str = "select \
    (select count(*) from (select 1 from dead_letters where discarded_at is null limit $1) as l), \
    (select min(seen_at) from dead_letters where discarded_at is null), \
    (select count(*) from (select 1 from parked where discarded_at is null limit $1) as p), \
    (select min(parked_at) from parked where discarded_at is null)";
pub(super) type BacklogRecord = (i64, Option<i64>, i64, Option<i64>);

pub(super) fn backlog(record: BacklogRecord) -> Backlog {
    let (dead_letters, oldest_letter_micros, parked, oldest_parked_micros) = record;
    Backlog { dead_letters, oldest_letter_micros, parked, oldest_parked_micros }
}

/// `version` of the order `$1`, and `cause` and `version` of what keeps it from version `$2`, in either database: a
/// fork stops an order wherever it is, and an event that needs a newer program stops it from there on.
pub(super) const PROSPECT: &str = "select o.version, p.cause, p.version from (select 1 as one) as one \
    left join orders as o on o.order_id = $1 left join (select cause, version from parked where order_id = $1 and \
    discarded_at is null and (cause = 'fork' or cause = 'newer' and version <= $2) order by (cause = 'fork') desc, version limit 1) as p \
    on true";
pub(super) type ProspectRecord = (Option<i64>, Option<String>, Option<i64>);

pub(super) fn prospect((reached, cause, waiting_version): ProspectRecord) -> Result<Prospect, Error> {
    let reached = reached.map(version).transpose()?.unwrap_or_default();
    Ok(Prospect { reached, stopped: cause.zip(waiting_version).map(waiting).transpose()? })
}

/// Every record of a result, as what it means.
pub(super) fn all<R, T, C: FromIterator<T>>(records: Vec<R>, read: fn(R) -> Result<T, Error>) -> Result<C, Error> {
    records.into_iter().map(read).collect()
}

pub(super) fn order_id(bytes: Id) -> Result<OrderId, Error> {
    id(&bytes)
}

pub(super) fn id(bytes: &[u8]) -> Result<OrderId, Error> {
    Uuid::from_slice(bytes).map(OrderId).map_err(Error::corrupt("an id"))
}

pub(super) fn known_version((id, number): (Id, i64)) -> Result<(OrderId, Version), Error> {
    Ok((order_id(id)?, version(number)?))
}

pub(super) fn version(number: i64) -> Result<Version, Error> {
    Version::try_from(number).map_err(Error::corrupt("a version"))
}

pub(super) fn digest(bytes: &[u8]) -> Result<Digest, Error> {
    bytes.try_into().map_err(Error::corrupt::<std::array::TryFromSliceError>("a digest"))
}

fn parse<T>(text: &str, what: &'static str) -> Result<T, Error>
where
    T: FromStr<Err: StdError + Send + Sync + 'static>,
{
    text.parse().map_err(Error::corrupt::<T::Err>(what))
}

pub(super) fn known_digest((id, number, hash): (Id, i64, Vec<u8>)) -> Result<((OrderId, Version), Digest), Error> {
    Ok(((order_id(id)?, version(number)?), digest(&hash)?))
}

pub(super) fn known_message((id, message): (Id, String)) -> Result<(OrderId, String), Error> {
    Ok((order_id(id)?, message))
}

pub(super) fn order(document: String) -> Result<OrderRow, Error> {
    OrderRow::from_document(&document).map_err(Error::corrupt("an order"))
}

pub(super) fn customer(record: CustomerRecord) -> Result<(<Customers as Totals>::Key, CustomerRow), Error> {
    let CustomerTotals { customer_id, currency, orders, cancellations, spend, last_order } = customer_totals(record)?;
    Ok(((customer_id, currency), CustomerRow { orders, cancellations, spend, last_order }))
}

pub(super) fn customer_totals(record: CustomerRecord) -> Result<CustomerTotals, Error> {
    let (customer_id, currency, orders, cancellations, spend, last_at, last_id) = record;
    Ok(CustomerTotals {
        customer_id: parse(&customer_id, "a customer")?,
        currency: parse(&currency, "a customer's currency")?,
        orders,
        cancellations,
        spend: parse(&spend, "a customer's spend")?,
        last_order: (last_at, order_id(last_id)?),
    })
}

pub(super) fn day(record: DayRecord) -> Result<(<DailySales as Totals>::Key, DayRow), Error> {
    let DayTotals { day, currency, orders, cancellations, revenue } = day_totals(record)?;
    Ok(((day, currency), DayRow { orders, cancellations, revenue }))
}

pub(super) fn day_totals(record: DayRecord) -> Result<DayTotals, Error> {
    let (day, currency, orders, cancellations, revenue) = record;
    let currency: Currency = parse(&currency, "a day's currency")?;
    Ok(DayTotals { day, currency, orders, cancellations, revenue: parse(&revenue, "a day's revenue")? })
}

pub(super) fn product(record: ProductRecord) -> Result<(<ProductDemand as Totals>::Key, DemandRow), Error> {
    let ProductTotals { sku, currency, units, revenue } = product_totals(record)?;
    Ok(((sku, currency), DemandRow { units, revenue }))
}

pub(super) fn product_totals(record: ProductRecord) -> Result<ProductTotals, Error> {
    let (sku, currency, units, revenue) = record;
    Ok(ProductTotals {
        sku: parse(&sku, "a product")?,
        currency: parse(&currency, "a product's currency")?,
        units,
        revenue: parse(&revenue, "a product's revenue")?,
    })
}

pub(super) fn cancellation(record: CancellationRecord) -> Result<(<Cancellations as Totals>::Key, i64), Error> {
    let CancellationTotals { key, orders } = cancellation_totals(record)?;
    Ok((key, orders))
}

pub(super) fn cancellation_totals(record: CancellationRecord) -> Result<CancellationTotals, Error> {
    let (day, customer_id, reason, orders) = record;
    let key = (day, parse(&customer_id, "a cancelling customer")?, Reason::from(reason.as_str()));
    Ok(CancellationTotals { key, orders })
}

pub(super) fn parked(record: ParkedRecord) -> Result<(Parked, bool), Error> {
    let (id, number, hash, cause, partition, offset, message, headers, discarded) = record;
    let unknown = || format!("the unknown cause `{cause}`");
    let parked = Parked {
        order_id: order_id(id)?,
        version: version(number)?,
        digest: digest(&hash)?,
        cause: Cause::parse(&cause).ok_or_else(unknown).map_err(Error::corrupt("a waiting event"))?,
        position: Position { partition, offset },
        message,
        headers: Headers::from_json(&headers).map_err(Error::corrupt("the headers of a waiting event"))?,
    };
    Ok((parked, discarded))
}

pub(super) fn checkpoints(records: Vec<CheckpointRecord>) -> Result<Checkpoints, Error> {
    let mut checkpoints = Checkpoints::default();
    for (partition, topic, cluster_id, next_offset, last, proven_offset, proven) in records {
        checkpoints.of = Some(Origin { topic, cluster_id });
        checkpoints.partitions.push(Checkpoint {
            partition,
            last: Anchor { offset: next_offset - 1, digest: digest(&last)? },
            proven: Anchor { offset: proven_offset, digest: digest(&proven)? },
        });
    }
    Ok(checkpoints)
}

pub(super) fn detail(record: DetailRecord) -> Result<Detail, Error> {
    let (number, document, cause, waiting_version) = record;
    let waiting = cause.zip(waiting_version).map(waiting).transpose()?;
    Ok(Detail { version: version(number)?, document: document.into(), waiting })
}

pub(super) fn waiting((cause, number): (String, i64)) -> Result<Waiting, Error> {
    Ok(Waiting { cause, version: version(number)? })
}

pub(super) fn event(record: EventRecord) -> Result<Event, Error> {
    let (number, event_id, event_type, occurred_at_micros, message, actor, correlation_id, causation_id) = record;
    Ok(Event {
        version: version(number)?,
        event_id: order_id(event_id)?.0,
        event_type,
        occurred_at_micros,
        message,
        actor,
        correlation_id,
        causation_id,
    })
}
