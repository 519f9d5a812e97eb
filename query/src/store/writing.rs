//! The projector's loads and saves, in whichever store there is.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Currency, OrderId};

use super::{Changes, Error, TotalsRows, Transaction, Turn, Writer};
use crate::batch::{Batch, Known};
use crate::checkpoint::Checkpoints;
use crate::cores::apart;
use crate::generation::{Built, Generation, Revisions};
use crate::intake::Incoming;
use crate::intervention::Intervention;
use crate::live::place::Place;
use crate::projection::Facts;
use crate::projections::cancellations::Cancellations;
use crate::projections::customers::Customers;
use crate::projections::daily_sales::DailySales;
use crate::projections::product_demand::ProductDemand;

/// Does it in the transaction, whichever it is.
macro_rules! within {
    ($self:ident, $transaction:ident => $work:expr) => {
        match $self {
            Self::Sqlite($transaction) => $work,
            Self::Postgres($transaction) => $work,
        }
    };
}

/// The rows of one projection that a batch concerns, loaded by its keys and folded; none where another revision of it
/// fills the table.
macro_rules! folded {
    ($self:ident, $batch:ident, $revisions:ident, $projection:ty, $load:ident) => {{
        let folds = $revisions.folds(stringify!($load));
        let facts = Facts::<$projection>::of($batch.changes().filter(|_change| folds));
        let keys = facts.keys();
        facts.fold_into(within!($self, transaction => transaction.$load(&keys).await?))
    }};
}

impl Writer {
    /// Applies the migrations that are missing.
    ///
    /// # Errors
    ///
    /// When one fails, or the database was migrated by another release.
    pub async fn migrate(&mut self) -> Result<(), Error> {
        within!(self, writer => writer.migrate().await)
    }

    /// Whether this node projects now, as far as it knows.
    pub fn turn(&mut self) -> Turn {
        within!(self, writer => writer.turn())
    }

    /// Prepares for making indexes of all rows at once.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn sort_on_disk(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(writer) => writer.sort_on_disk().await,
            // The server knows how much memory it has.
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Gives the right to project back, as the end of the process would. Where a lease is the right, its keeper does.
    pub fn give_back(&mut self) {
        match self {
            Self::Sqlite(writer) => writer.give_back(),
            Self::Postgres(_) => {}
        }
    }

    /// Begins a transaction that nobody else's write can come between.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] when it is another node's turn; otherwise when the database is locked or fails.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        Ok(match self {
            Self::Sqlite(writer) => Transaction::Sqlite(writer.begin().await?),
            Self::Postgres(writer) => Transaction::Postgres(writer.begin().await?),
        })
    }

    /// Closes the database in good order.
    ///
    /// # Errors
    ///
    /// When that fails; nothing is lost by it.
    pub async fn close(self) -> Result<(), Error> {
        within!(self, writer => writer.close().await)
    }
}

impl Transaction<'_> {
    /// Makes it so. Safe to repeat when it fails without telling how it ended: the checkpoint is in it, so a batch that
    /// was committed after all is not read again.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] when another node projects meanwhile, and then nothing of the transaction is kept;
    /// otherwise when the database fails.
    pub async fn commit(self) -> Result<(), Error> {
        within!(self, transaction => transaction.commit().await)
    }

    /// Everything that a batch of these records has to know, also about `besides`.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn known(&mut self, incoming: &[Incoming], besides: &[OrderId]) -> Result<Known, Error> {
        match self {
            Self::Sqlite(_) => apart(self.load(incoming, besides)).await,
            Self::Postgres(_) => self.load(incoming, besides).await,
        }
    }

    async fn load(&mut self, incoming: &[Incoming], besides: &[OrderId]) -> Result<Known, Error> {
        let subjects = incoming.iter().filter_map(|incoming| incoming.meaning.subject());
        let orders: BTreeSet<OrderId> =
            subjects.map(|(order_id, _version)| order_id).chain(besides.iter().copied()).collect();
        let mut known = Known { rows: Vec::new(), parked: Vec::new(), ..Known::default() };
        if orders.is_empty() {
            return Ok(known);
        }
        known.rows = within!(self, transaction => transaction.orders(&orders).await?);
        for (parked, discarded) in within!(self, transaction => transaction.parked(&orders).await?) {
            if discarded {
                known.discarded.push((parked.order_id, parked.version, parked.digest));
            } else {
                known.parked.push(parked);
            }
        }
        let compared = known.compared(incoming);
        if !compared.is_empty() {
            known.digests = within!(self, transaction => transaction.digests(&compared).await?);
        }
        let published = known.published(incoming);
        if !published.is_empty() {
            known.first_messages = within!(self, transaction => transaction.first_messages(&published).await?);
        }
        Ok(known)
    }

    /// The sums after a batch: the rows that it concerns, with its facts folded in.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn totals(&mut self, batch: &Batch, revisions: &Revisions) -> Result<TotalsRows, Error> {
        match self {
            Self::Sqlite(_) => apart(self.fold_totals(batch, revisions)).await,
            Self::Postgres(_) => self.fold_totals(batch, revisions).await,
        }
    }

    async fn fold_totals(&mut self, batch: &Batch, revisions: &Revisions) -> Result<TotalsRows, Error> {
        Ok(TotalsRows {
            customers: folded!(self, batch, revisions, Customers, customers),
            daily_sales: folded!(self, batch, revisions, DailySales, daily_sales),
            product_demand: folded!(self, batch, revisions, ProductDemand, product_demand),
            cancellations: folded!(self, batch, revisions, Cancellations, cancellations),
        })
    }

    /// How far each partition is applied.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn checkpoints(&mut self) -> Result<Checkpoints, Error> {
        within!(self, transaction => transaction.checkpoints().await)
    }

    /// Where changes go that no record brings about: behind the last record that is applied, and what it brought about.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn next_places(&mut self, checkpoints: &Checkpoints) -> Result<BTreeMap<i32, Place>, Error> {
        // Where a change was and is no more, no other one may come.
        let mut next = within!(self, transaction => transaction.kept().await?);
        for checkpoint in &checkpoints.partitions {
            let partition = checkpoint.partition;
            let last = within!(self, transaction => transaction.last_change(partition).await?);
            let last = last.map_or(Place::START, |last| last.at.place.after());
            let next = next.entry(partition).or_insert(Place::START);
            *next = last.max(Place::of_record(checkpoint.last.offset)).max(*next);
        }
        Ok(next)
    }

    /// The orders after `after` that wait for a newer program, by id, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn orders_waiting_for_newer(
        &mut self,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderId>, Error> {
        within!(self, transaction => transaction.orders_waiting_for_newer(after, limit).await)
    }

    /// How many events wait.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn parked_count(&mut self) -> Result<i64, Error> {
        within!(self, transaction => transaction.parked_count().await)
    }

    /// Writes what came of a batch.
    ///
    /// # Errors
    ///
    /// When the database fails; the transaction is then good for nothing but being dropped.
    pub async fn save(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => apart(transaction.save(changes)).await,
            Self::Postgres(transaction) => transaction.save(changes).await,
        }
    }

    /// Forgets how far the partitions are applied: the next reading starts at the beginning, over the existing rows.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn forget_checkpoints(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => apart(transaction.forget_checkpoints()).await,
            Self::Postgres(transaction) => transaction.forget_checkpoints().await,
        }
    }

    /// What the tables are; none before they are first written to.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn generation(&mut self) -> Result<Option<Generation>, Error> {
        within!(self, transaction => transaction.generation().await)
    }

    /// Says what the tables are, unless they say so already.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn begin_generation(&mut self, begun: &Generation) -> Result<(), Error> {
        within!(self, transaction => transaction.begin_generation(begun).await)
    }

    /// Records the default currency that the tables are filled with, once for each generation.
    ///
    /// # Errors
    ///
    /// [`Error::Unusable`] when another one is recorded; else when the database fails.
    pub async fn settle_currency(&mut self, default_currency: Currency) -> Result<(), Error> {
        within!(self, transaction => transaction.settle_currency(default_currency).await)
    }

    /// Says how far the building is.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn tell_built(&mut self, built: Built) -> Result<(), Error> {
        within!(self, transaction => transaction.tell_built(built).await)
    }

    /// Says that the generation was verified, with what that counted.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn complete_generation(&mut self, now_micros: i64, report: &str) -> Result<(), Error> {
        within!(self, transaction => transaction.complete_generation(now_micros, report).await)
    }

    /// Says why the generation is not to be served, nor gone on with.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn condemn_generation(&mut self, report: &str) -> Result<(), Error> {
        within!(self, transaction => transaction.condemn_generation(report).await)
    }

    /// Where the reading of the log goes on, and where the topic is read from after it, as they were kept.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn log_state(&mut self) -> Result<(Option<String>, Option<String>), Error> {
        within!(self, transaction => transaction.log_state().await)
    }

    /// Keeps where the reading of the log goes on.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn keep_log_after(&mut self, after: Option<&str>) -> Result<(), Error> {
        within!(self, transaction => transaction.keep_log_after(after).await)
    }

    /// Keeps where the topic is read from after the log.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn keep_log_anchors(&mut self, anchors: &str) -> Result<(), Error> {
        within!(self, transaction => transaction.keep_log_anchors(anchors).await)
    }

    /// Puts off what only readers need, remembering it: the indexes, and the rows of `order_products`, which are all told by
    /// the orders. Rows that come in bulk come faster.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn defer_bulk(&mut self) -> Result<(), Error> {
        within!(self, transaction => transaction.defer_bulk().await)
    }

    /// Whether the rows of `order_products` are put off, and are not to be written.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn defers_products(&mut self) -> Result<bool, Error> {
        within!(self, transaction => transaction.defers_products().await)
    }

    /// Makes what was put off.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn make_up(&mut self) -> Result<(), Error> {
        match self {
            Self::Sqlite(transaction) => apart(transaction.make_up()).await,
            Self::Postgres(transaction) => transaction.make_up().await,
        }
    }

    /// Sets how far the partitions are applied, where the log told everything before. Streams begin there.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn start_at(&mut self, checkpoints: &Checkpoints) -> Result<(), Error> {
        within!(self, transaction => transaction.start_at(checkpoints).await)
    }

    /// Takes over a wish that was made of another generation, unless it is here already.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn adopt(&mut self, wish: &Intervention) -> Result<(), Error> {
        within!(self, transaction => transaction.adopt(wish).await)
    }
}
