//! The changes as they were applied: what streams ask, and what the projector removes.

use std::collections::BTreeMap;

use sqlx as asking;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

use super::{Store, Transaction};
use crate::checkpoint::Checkpoints;
use crate::live::place::Place;
use crate::store::answer::{Change, LastChange};
use crate::store::changes::{
    ChangeRecord, EVENT_AT, HEAD, KEPT, LAST, PARTITIONS_MAX, PlaceRecord, TRIM, TRIMMED, ask_for_changes, change,
    keep_changes, kept_after, kept_max, last, place, trim_max,
};
use crate::store::record::{self, Id};
use crate::store::{Changes, Error};

ask_for_changes!(Store, Postgres);
keep_changes!(Transaction);
