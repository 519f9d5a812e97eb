//! Everything there is, row after row: what a rebuild compares and carries over.

use std::collections::BTreeSet;

use domain::{OrderId, Version};
use uuid::Uuid;

use super::digest::{Digests, HistoryTuple, OrderTuple};
use super::intake::{LetterAge, ParkedAge};
use super::reading::ask;
use super::{Error, Store, Tables};
use crate::intervention::Intervention;

impl Store {
    /// What the rows of every projected table add up to, in one snapshot.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn digests(&self) -> Result<Digests, Error> {
        ask!(self, store => store.digests().await)
    }

    /// Shows every applied event, by order and version.
    ///
    /// # Errors
    ///
    /// When the database fails, or `see` does.
    pub(crate) async fn walk_history(
        &self,
        see: impl FnMut(HistoryTuple) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        ask!(self, store => store.walk_history(see).await)
    }

    /// Shows every order.
    ///
    /// # Errors
    ///
    /// When the database fails, or `see` does.
    pub(crate) async fn walk_orders(
        &self,
        see: impl FnMut(OrderTuple) -> Result<(), Error> + Send,
    ) -> Result<(), Error> {
        ask!(self, store => store.walk_orders(see).await)
    }

    /// The orders that have events which are not applied.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn stopped_orders(&self) -> Result<BTreeSet<OrderId>, Error> {
        ask!(self, store => store.stopped_orders().await)
    }

    /// The wishes after `after` that another generation has to know: that something be discarded, and what was not granted
    /// yet. In the order of asking, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn lasting_wishes(&self, after: Uuid, limit: u32) -> Result<Vec<Intervention>, Error> {
        ask!(self, store => store.lasting_wishes(after, limit).await)
    }

    /// Since when the dead letters after `after` are kept, by name, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn letter_ages(&self, after: &LetterAge, limit: u32) -> Result<Vec<LetterAge>, Error> {
        ask!(self, store => store.letter_ages(after, limit).await)
    }

    /// Since when the events after `after` wait, by name, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn parked_ages(&self, after: &ParkedAge, limit: u32) -> Result<Vec<ParkedAge>, Error> {
        ask!(self, store => store.parked_ages(after, limit).await)
    }

    /// The orders after `after` with their versions, by id, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn versions_after(
        &self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<(OrderId, Version)>, Error> {
        ask!(self, store => store.versions_after(after, limit).await)
    }
}
