//! The API's questions, put to whichever store there is.

use std::collections::BTreeMap;

use domain::{Currency, CustomerId, OrderId, Sku, Version};

use super::answer::{
    Backlog, CancellationFilter, CancellationTotals, Change, CustomerTotals, DayTotals, Detail, Event, LastChange,
    ListFilter, Listed, ListedLetter, ListedParked, Page, ProductTotals, Prospect, Waiting,
};
use super::{Error, Store, Tables};
use crate::checkpoint::Checkpoints;
use crate::generation::Generation;
use crate::intervention::{Intervention, LetterKey};
use crate::live::place::Place;
use crate::projections::cancellations::Reason;

/// Asks the store, whichever it is.
macro_rules! ask {
    ($self:ident, $store:ident => $answer:expr) => {
        match $self.tables() {
            Tables::Sqlite($store) => $answer,
            Tables::Postgres($store) => $answer,
        }
    };
}

pub(super) use ask;

impl Store {
    /// Whether the database answers.
    ///
    /// # Errors
    ///
    /// When it does not, or has no tables.
    pub async fn ping(&self) -> Result<(), Error> {
        ask!(self, store => store.ping().await)
    }

    /// Reads a whole file and tells what is wrong with it; none when all is well, or when it is a server's to know.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn quick_check(&self) -> Result<Option<String>, Error> {
        match self.tables() {
            Tables::Sqlite(store) => store.quick_check().await,
            Tables::Postgres(_) => Ok(None),
        }
    }

    /// Waits for the readers to finish and closes them.
    pub async fn close(&self) {
        ask!(self, store => store.close().await);
    }

    /// What the tables are; none before they are first written to.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn generation(&self) -> Result<Option<Generation>, Error> {
        ask!(self, store => store.generation().await)
    }

    /// Checks that messages without a currency mean what they meant when these tables were filled.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`] when the tables were filled with another default currency; else when the database fails.
    pub async fn fits_currency(&self, default_currency: Currency) -> Result<(), Error> {
        ask!(self, store => store.fits_currency(default_currency).await)
    }

    /// How far each partition is applied.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn checkpoints(&self) -> Result<Checkpoints, Error> {
        ask!(self, store => store.checkpoints().await)
    }

    /// One order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn order(&self, id: OrderId) -> Result<Option<Detail>, Error> {
        ask!(self, store => store.order(id).await)
    }

    /// Why and from which version on an order's events wait, if any do.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn waiting(&self, id: OrderId) -> Result<Option<Waiting>, Error> {
        ask!(self, store => store.waiting(id).await)
    }

    /// How many of an order's events are applied; none when it is not known.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn order_version(&self, id: OrderId) -> Result<Option<Version>, Error> {
        ask!(self, store => store.order_version(id).await)
    }

    /// How far an order is, and whether waiting can bring it to the version that is wanted.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn prospect(&self, id: OrderId, wanted: Version) -> Result<Prospect, Error> {
        ask!(self, store => store.prospect(id, wanted).await)
    }

    /// How many events of each of these orders are applied, as far as they are known.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn order_versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, Version)>, Error> {
        ask!(self, store => store.order_versions(ids).await)
    }

    /// Every applied event of an order, in version order; none when it is not known.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn history(&self, id: OrderId) -> Result<Vec<Event>, Error> {
        ask!(self, store => store.history(id).await)
    }

    /// A page of at most `limit` orders.
    ///
    /// # Errors
    ///
    /// When the database fails, or [`Error::OverBudget`] when no index answers and passing by all the others takes too long.
    pub async fn list(&self, filter: &ListFilter, page: &Page, limit: u32) -> Result<Listed, Error> {
        ask!(self, store => store.list(filter, page, limit, self.list_budget).await)
    }

    /// How many orders a list has on all its pages, counted up to `most`.
    ///
    /// # Errors
    ///
    /// When the database fails, or [`Error::OverBudget`] when counting takes too long.
    pub async fn count(&self, filter: &ListFilter, most: u32) -> Result<i64, Error> {
        ask!(self, store => store.count(filter, most, self.list_budget).await)
    }

    /// How the database goes about [`Store::list`], in its own words.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn list_plan(&self, filter: &ListFilter, page: &Page, limit: u32) -> Result<Vec<String>, Error> {
        ask!(self, store => store.list_plan(filter, page, limit).await)
    }

    /// The totals of the first `limit` customers after `after`, or of `only`, by id and currency.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn customers(
        &self,
        only: Option<&CustomerId>,
        after: Option<&CustomerId>,
        limit: u32,
    ) -> Result<Vec<CustomerTotals>, Error> {
        ask!(self, store => store.customers(only, after, limit).await)
    }

    /// The first `limit` rows of the days from `from` to `to`, after the key `after`, by day and currency.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn daily_sales(
        &self,
        from: i64,
        to: i64,
        currency: Option<Currency>,
        after: Option<(i64, Currency)>,
        limit: u32,
    ) -> Result<Vec<DayTotals>, Error> {
        ask!(self, store => store.daily_sales(from, to, currency, after, limit).await)
    }

    /// The first `limit` products after the key `after`, or of `only`, by SKU and currency.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn products(
        &self,
        only: Option<&Sku>,
        after: Option<(&Sku, Currency)>,
        limit: u32,
    ) -> Result<Vec<ProductTotals>, Error> {
        ask!(self, store => store.products(only, after, limit).await)
    }

    /// The first `limit` rows of cancellations after the key `after`, by day, customer and reason.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn cancellations(
        &self,
        filter: &CancellationFilter,
        after: Option<&(i64, CustomerId, Reason)>,
        limit: u32,
    ) -> Result<Vec<CancellationTotals>, Error> {
        ask!(self, store => store.cancellations(filter, after, limit).await)
    }

    /// What was not applied: how much, and since when.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn backlog(&self) -> Result<Backlog, Error> {
        ask!(self, store => store.backlog().await)
    }

    /// The newest `limit` dead letters, or of those the newest that were discarded.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn dead_letters(&self, discarded: bool, limit: u32) -> Result<Vec<ListedLetter>, Error> {
        ask!(self, store => store.dead_letters(discarded, limit).await)
    }

    /// One dead letter, discarded or not.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn dead_letter(&self, key: &LetterKey) -> Result<Option<ListedLetter>, Error> {
        ask!(self, store => store.dead_letter(key).await)
    }

    /// The first `limit` waiting events, or discarded ones, by order and version.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn parked(&self, discarded: bool, limit: u32) -> Result<Vec<ListedParked>, Error> {
        ask!(self, store => store.parked(discarded, limit).await)
    }

    /// The first `limit` events of an order that wait or were discarded, by version, from a version on.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn parked_of(&self, order: OrderId, from: Version, limit: u32) -> Result<Vec<ListedParked>, Error> {
        ask!(self, store => store.parked_of(order, from, limit).await)
    }

    /// The first `limit` orders after `after` that have waited for a missing event since `parked_until_micros` or longer.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn holes(
        &self,
        parked_until_micros: i64,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, Error> {
        ask!(self, store => store.holes(parked_until_micros, after, limit).await)
    }

    /// One wish of an operator.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn intervention(&self, id: uuid::Uuid) -> Result<Option<Intervention>, Error> {
        ask!(self, store => store.intervention(id).await)
    }

    /// The newest `limit` wishes of operators.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn interventions(&self, limit: u32) -> Result<Vec<Intervention>, Error> {
        ask!(self, store => store.interventions(limit).await)
    }

    /// The changes from these places on, at most `limit` of each of these partitions, in the order of application.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn changes(&self, from: &BTreeMap<i32, Place>, limit: u32) -> Result<Vec<Change>, Error> {
        if from.is_empty() {
            return Ok(Vec::new());
        }
        ask!(self, store => store.changes(from, limit).await)
    }

    /// The event that was told at a place, if there is one.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn event_at(&self, partition: i32, place: Place) -> Result<Option<uuid::Uuid>, Error> {
        ask!(self, store => store.event_at(partition, place).await)
    }

    /// The last change of a partition, if there is one.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn last_change(&self, partition: i32) -> Result<Option<LastChange>, Error> {
        ask!(self, store => store.last_change(partition).await)
    }

    /// From where on the changes of a partition are all there; a partition that is not named has them all.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn kept(&self) -> Result<BTreeMap<i32, Place>, Error> {
        ask!(self, store => store.kept().await)
    }

    /// Differs when there are other changes; none when there is none.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn head(&self) -> Result<Option<i64>, Error> {
        ask!(self, store => store.head().await)
    }
}
