//! What comes of a batch, on its way into the store.

use chrono::Utc;

use crate::batch::Batch;
use crate::checkpoint::Checkpoints;
use crate::generation::Revisions;
use crate::projection::Facts;
use crate::projections::customers::Customers;
use crate::projections::daily_sales::DailySales;
use crate::projections::order_products::OrderProducts;
use crate::projections::product_demand::ProductDemand;
use crate::store::{self, Changes, Transaction};

/// How a batch is written.
#[derive(Debug)]
pub(super) struct Filling {
    /// What fills the tables. A projection of another revision is left as it is.
    pub(super) revisions: Revisions,
    /// How many changes are kept for streams that resume.
    pub(super) changes_kept: u32,
}

/// Folds a batch into the totals and writes all of it. Tells how many events wait then, where that may have changed.
pub(super) async fn batch(
    transaction: &mut Transaction<'_>,
    batch: &Batch,
    checkpoints: &Checkpoints,
    filling: &Filling,
) -> Result<Option<i64>, store::Error> {
    let customers = Facts::<Customers>::of(batch.changes());
    let customers = customers.fold_into(transaction.customers(&customers.keys()).await?);
    let daily_sales = Facts::<DailySales>::of(batch.changes());
    let daily_sales = daily_sales.fold_into(transaction.daily_sales(&daily_sales.keys()).await?);
    let product_demand = Facts::<ProductDemand>::of(batch.changes());
    let product_demand = product_demand.fold_into(transaction.product_demand(&product_demand.keys()).await?);
    let order_products = OrderProducts::of(batch.changes());
    transaction
        .save(&Changes {
            batch,
            customers: &customers,
            daily_sales: &daily_sales,
            product_demand: &product_demand,
            order_products: &order_products,
            checkpoints,
            changes_kept: filling.changes_kept,
            now_micros: Utc::now().timestamp_micros(),
        })
        .await?;
    let changed = batch.newly_parked().next().is_some() || !batch.unparked.is_empty();
    Ok(if changed { Some(transaction.parked_count().await?) } else { None })
}
