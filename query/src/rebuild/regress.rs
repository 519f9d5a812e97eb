//! No reader may see less than before: every order that is served now has to be in the new generation, at the same version or
//! a later one. A topic that was made anew, or that another cluster has, agrees with itself; this gives it away.

use domain::{OrderId, Version};
use tokio_util::sync::CancellationToken;

use super::{Error, Making, Rebuild, stopping};
use crate::store::{self, Store};

/// Orders that are compared together.
const ORDERS_MAX: u16 = 2_000;
/// Orders that may have moved on in what is served while they are compared.
const LATE_MAX: usize = 100_000;

impl Rebuild {
    /// Compares every served order's version with the new generation's.
    pub(super) async fn refuse_regress(
        &self,
        making: &mut Making,
        served: &Store,
        shutdown: &CancellationToken,
    ) -> Result<(), Error> {
        let (mut after, mut late) = (None, Vec::new());
        loop {
            stopping(shutdown)?;
            let page = served.versions_after(after, ORDERS_MAX.into()).await?;
            let Some((last, _version)) = page.last() else { break };
            after = Some(*last);
            late.extend(behind(&making.store, &page).await?.into_iter().map(|(order, served, _found)| (order, served)));
            if late.len() > LATE_MAX {
                break;
            }
        }
        // What was applied there meanwhile is on the topic, and is read now.
        self.read_topic(making, shutdown).await?;
        for orders in late.chunks(ORDERS_MAX.into()) {
            if let Some((order_id, served, found)) = behind(&making.store, orders).await?.first() {
                let order_id = order_id.to_string();
                return Err(Error::Regress { order_id, found: found.0, served: served.0 });
            }
        }
        Ok(())
    }
}

/// The orders of which the store has less: the order, what it should have, and what it has.
async fn behind(
    store: &Store,
    orders: &[(OrderId, Version)],
) -> Result<Vec<(OrderId, Version, Version)>, store::Error> {
    let ids: Vec<OrderId> = orders.iter().map(|(order_id, _version)| *order_id).collect();
    let found: std::collections::BTreeMap<_, _> = store.order_versions(&ids).await?.into_iter().collect();
    let compared =
        orders.iter().map(|(order_id, served)| (*order_id, *served, found.get(order_id).copied().unwrap_or_default()));
    Ok(compared.filter(|(_order, served, found)| found < served).collect())
}
