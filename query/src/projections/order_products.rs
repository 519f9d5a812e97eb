//! Which orders have which products among their items: what a list by SKU walks.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Money, OrderId, Sku};

use crate::projection::Change;
use crate::projections::orders::OrderRow;

/// Names a product of an order: the SKU, when the order was placed in microseconds, and the order.
pub type Key = (Sku, i64, OrderId);

/// What a batch makes of the rows.
#[derive(Debug, Default)]
pub struct OrderProducts {
    /// Rows to be there, with what the order costs.
    pub come: Vec<(Key, Money)>,
    /// Rows not to be there.
    pub gone: Vec<Key>,
}

impl OrderProducts {
    /// What these changes, in their order, make of the rows.
    pub fn of<'a>(changes: impl Iterator<Item = Change<'a>>) -> Self {
        let mut last: BTreeMap<Key, Option<Money>> = BTreeMap::new();
        for Change { before, after, .. } in changes {
            if before.is_some_and(|before| before.lines == after.lines && before.total == after.total) {
                continue;
            }
            let (had, has) = (before.map(skus).unwrap_or_default(), skus(after));
            let key = |sku: &&Sku| ((*sku).clone(), after.created_at.timestamp_micros(), after.order_id);
            last.extend(had.difference(&has).map(|sku| (key(sku), None)));
            last.extend(has.iter().map(|sku| (key(sku), Some(after.total))));
        }
        let mut rows = Self::default();
        for (key, total) in last {
            match total {
                Some(total) => rows.come.push((key, total)),
                None => rows.gone.push(key),
            }
        }
        rows
    }
}

fn skus(row: &OrderRow) -> BTreeSet<&Sku> {
    row.lines.iter().map(|line| &line.sku).collect()
}
