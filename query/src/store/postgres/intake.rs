//! What was not applied, and what operators wish about it.

use std::collections::BTreeSet;

use domain::{OrderId, Version};
use sqlx as asking;
use uuid::Uuid;

use super::{Store, Transaction};
use crate::batch::ParkedKey;
use crate::intake::{Digest, Position};
use crate::intervention::{Intervention, LetterKey};
use crate::store::answer::{BACKLOG_COUNT_MAX, Backlog, ListedLetter, ListedParked};
use crate::store::intake::rows::{self, StoredLetter};
use crate::store::intake::{self, LetterAge, ParkedAge, ask_for_intake, keep_intake};
use crate::store::{Error, record};

ask_for_intake!(Store);
keep_intake!(Transaction);
