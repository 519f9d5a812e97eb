//! The walks over the tables.

use std::collections::BTreeSet;

use domain::{OrderId, Version};
use futures_util::TryStreamExt as _;

use super::Store;
use crate::store::Error;
use crate::store::digest::{
    CANCELLATIONS, CUSTOMERS, CancellationTuple, CustomerTuple, DAYS, DEMAND, DayTuple, DemandTuple, Digests, HISTORY,
    HistoryTuple, ORDER_PRODUCTS, ORDERS, OrderProductTuple, OrderTuple, STOPPED, TableDigest, VERSIONS, walk_tables,
};
use crate::store::record::{self, Id};

/// A reader's transaction is one already.
const SNAPSHOT: &[&str] = &[];

walk_tables!(Store);
