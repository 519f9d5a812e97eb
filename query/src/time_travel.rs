//! An order as it was: its first events, folded once more by the code that made its row; and what changed between two
//! such moments.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use domain::schema;
use domain::{Currency, Version};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::projections::orders::OrderRow;
use crate::store::Error;
use crate::store::answer::Event;

/// A moment in the life of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// After so many of its events.
    Version(Version),
    /// After the events that had happened by this time.
    Time(DateTime<Utc>),
}

/// The order at that moment, from its whole history in version order; none when it did not exist yet, or has no such
/// version.
///
/// Events whose clocks disagree with their order count by their order: the first one that is later than the time ends it.
///
/// # Errors
///
/// When a stored message is none that this program can read.
pub fn at(history: &[Event], moment: Moment, default_currency: Currency) -> Result<Option<OrderRow>, Error> {
    let past = history.iter().take_while(|event| match moment {
        Moment::Version(version) => event.version <= version,
        Moment::Time(time) => event.occurred_at_micros <= time.timestamp_micros(),
    });
    let mut row: Option<OrderRow> = None;
    for event in past {
        let decoded = schema::decode(event.message.as_bytes(), default_currency);
        let recorded = decoded.map_err(Error::corrupt("an event"))?.recorded;
        let next = OrderRow::next(row.as_ref(), &recorded);
        row = Some(next.ok_or("an order that does not begin with its creation").map_err(Error::corrupt("a history"))?);
    }
    Ok(row.filter(|row| match moment {
        Moment::Version(version) => row.version == version,
        Moment::Time(_) => true,
    }))
}

/// One difference between two documents of an order.
#[derive(Debug, Serialize)]
pub struct Change {
    /// The field of the document.
    pub field: String,
    /// Of `items`: which one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
    /// What it was; null where it was not.
    pub from: Option<Box<RawValue>>,
    /// What it became; null where it is not any more.
    pub to: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Item {
    sku: String,
}

type Fields = BTreeMap<String, Box<RawValue>>;

/// What differs, by field and then by SKU. The version is left out: it always does.
///
/// # Errors
///
/// None for any row; a fault of the JSON library otherwise.
pub fn difference(before: Option<&OrderRow>, after: Option<&OrderRow>) -> Result<Vec<Change>, serde_json::Error> {
    let (mut before, mut after) = (fields(before)?, fields(after)?);
    let (items_before, items_after) = (items(before.remove("items"))?, items(after.remove("items"))?);
    let mut changes = Vec::new();
    compare(before, after, |field, from, to| changes.push(Change { field, sku: None, from, to }));
    compare(items_before, items_after, |(sku, _nth), from, to| {
        changes.push(Change { field: "items".to_owned(), sku: Some(sku), from, to });
    });
    Ok(changes)
}

fn fields(row: Option<&OrderRow>) -> Result<Fields, serde_json::Error> {
    let Some(row) = row else { return Ok(Fields::new()) };
    let mut fields: Fields = serde_json::from_str(&row.to_document()?)?;
    fields.remove("version");
    Ok(fields)
}

/// By SKU, and by place where one occurs twice: other writers than ours may do that.
fn items(raw: Option<Box<RawValue>>) -> Result<BTreeMap<(String, usize), Box<RawValue>>, serde_json::Error> {
    let mut items = BTreeMap::new();
    let list: Vec<Box<RawValue>> = raw.map_or_else(|| Ok(Vec::new()), |raw| serde_json::from_str(raw.get()))?;
    for item in list {
        let Item { sku } = serde_json::from_str(item.get())?;
        let nth = items.range((sku.clone(), 0)..=(sku.clone(), usize::MAX)).count();
        items.insert((sku, nth), item);
    }
    Ok(items)
}

/// Tells what is in one alone, or in both with other digits: the stored text is exact, so text is compared.
fn compare<K: Ord>(
    mut before: BTreeMap<K, Box<RawValue>>,
    after: BTreeMap<K, Box<RawValue>>,
    mut tell: impl FnMut(K, Option<Box<RawValue>>, Option<Box<RawValue>>),
) {
    for (key, to) in after {
        let from = before.remove(&key);
        if from.as_ref().is_none_or(|from| from.get() != to.get()) {
            tell(key, from, Some(to));
        }
    }
    for (key, from) in before {
        tell(key, Some(from), None);
    }
}
