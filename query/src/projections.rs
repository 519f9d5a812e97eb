//! The read models, one file each.

pub mod orders;

pub mod order_history;

pub mod order_products;

pub mod customers;

pub mod daily_sales;

pub mod product_demand;

pub mod cancellations;

/// Counts the changes to what each projection makes of the same events.
///
/// Raise it with such a change: the read model is then built anew beside the one that is served. `orders` is the orders
/// with their history, products and changes.
pub const REVISIONS: [(&str, u32); 5] =
    [("cancellations", 1), ("customers", 1), ("daily_sales", 1), ("orders", 1), ("product_demand", 1)];
