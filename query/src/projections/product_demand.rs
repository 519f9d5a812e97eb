//! What is wanted of a product: the lines of all orders that are not cancelled, per currency.

use domain::order::Line;
use domain::{Currency, Sku};

use crate::projection::{Change, Totals};
use crate::projections::orders::OrderRow;
use crate::sum::Sum;

/// The projection.
#[derive(Debug)]
pub struct ProductDemand;

/// The demand for one SKU in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DemandRow {
    /// Pieces.
    pub units: i64,
    /// Price times pieces, of the lines that tell a price.
    pub revenue: Sum,
}

impl Totals for ProductDemand {
    type Key = (Sku, Currency);
    type Row = DemandRow;
    type Fact = DemandRow;

    /// A changed basket takes back its old lines and adds its new ones; a cancelled order wants nothing any more.
    fn facts(change: Change<'_>, tell: &mut impl FnMut(Self::Key, DemandRow)) {
        let Change { before, after, .. } = change;
        let unchanged = before.is_some_and(|before| before.wanted() == after.wanted());
        if unchanged {
            return;
        }
        let currency = after.total.currency();
        for line in before.map_or(&[][..], OrderRow::wanted) {
            let DemandRow { units, revenue } = demand(line);
            tell((line.sku.clone(), currency), DemandRow { units: -units, revenue: -revenue });
        }
        for line in after.wanted() {
            tell((line.sku.clone(), currency), demand(line));
        }
    }

    fn fold(row: DemandRow, fact: &DemandRow) -> DemandRow {
        DemandRow { units: row.units.saturating_add(fact.units), revenue: row.revenue + fact.revenue }
    }
}

fn demand(line: &Line) -> DemandRow {
    let units = i64::from(line.quantity);
    let revenue = line.unit_price.map_or(Sum::default(), |price| Sum::of(price, units));
    DemandRow { units, revenue }
}
