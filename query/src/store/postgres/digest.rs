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

/// What one statement sees the next one sees too, however long they take.
const SNAPSHOT: &[&str] = &["set transaction isolation level repeatable read", "set local statement_timeout = 0"];

walk_tables!(Store);
