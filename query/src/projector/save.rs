//! What comes of a batch, on its way into the store.

use chrono::Utc;

use crate::batch::Batch;
use crate::checkpoint::Checkpoints;
use crate::generation::Revisions;
use crate::projections::order_products::OrderProducts;
use crate::store::{self, Changes, Transaction};

/// How a batch is written.
#[derive(Debug)]
pub(super) struct Filling {
    /// What fills the tables. A projection of another revision is left as it is.
    pub(super) revisions: Revisions,
    /// How many changes are kept for streams that resume.
    pub(super) changes_kept: u32,
    /// Whether the tables are built beside those that are served.
    pub(super) beside: bool,
}

/// Folds a batch into the totals and writes all of it. Tells how many events wait then, where that may have changed.
pub(super) async fn batch(
    transaction: &mut Transaction<'_>,
    batch: &Batch,
    checkpoints: &Checkpoints,
    filling: &Filling,
) -> Result<Option<i64>, store::Error> {
    let totals = transaction.totals(batch, &filling.revisions).await?;
    let put_off = filling.beside && transaction.defers_products().await?;
    let order_products = if put_off { OrderProducts::default() } else { OrderProducts::of(batch.changes()) };
    transaction
        .save(&Changes {
            batch,
            totals: &totals,
            order_products: &order_products,
            checkpoints,
            changes_kept: filling.changes_kept,
            now_micros: Utc::now().timestamp_micros(),
        })
        .await?;
    let changed = batch.newly_parked().next().is_some() || !batch.unparked.is_empty();
    Ok(if changed { Some(transaction.parked_count().await?) } else { None })
}
