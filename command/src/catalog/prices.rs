//! Prices in memory, and the one task that asks the database for the others.
//!
//! Orders ask for prices all the time. What many ask for at once is asked once: the loader takes every question that waits and
//! makes one of them, as a lane does with commands. So there is one question in flight, whatever is asked, over one connection,
//! and a caller's question begins after the caller came: it sees every change that was answered before.
//!
//! - **Invariant:** a price in memory is never older than [`PRICE_AGE_MAX`].
//! - **Invariant:** the queue of questions is bounded; a full one refuses.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chassis::postgres;
use chassis::telemetry::ErrorChain;
use domain::{Money, Sku};
use moka::future::Cache;
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::{ANSWER_DEADLINE, Error, Row, read};

/// How old a price may be before it is asked for again, while it goes on being used.
const PRICE_FRESH: Duration = Duration::from_secs(1);
/// How old a price may be that is used: how late other nodes notice a change.
pub const PRICE_AGE_MAX: Duration = Duration::from_secs(3);
/// The most SKUs whose prices are kept in memory.
const PRICES_MAX: u64 = 100_000;
/// The most questions that wait.
const QUESTIONS_MAX: usize = 4_096;
/// How many SKUs the database is asked for at once, unless a single question has more.
const SKUS_AT_ONCE: usize = 2_000;
/// How long a caller waits for prices.
const PRICES_WAIT: Duration = Duration::from_secs(5);

/// What a SKU costs; none: it may not be sold.
type Price = Option<Money>;
/// What a caller gets.
type Found = HashMap<Sku, Price>;
/// The rows of one question to the database, by SKU.
type Loaded = HashMap<String, Result<Money, Error>>;

/// What is known of a SKU's price.
#[derive(Debug, Clone)]
struct Known {
    /// None: it was changed here and has to be asked for.
    price: Option<Price>,
    /// When the question began that brought it, or when it was changed.
    as_of: Instant,
    /// Whether it is being asked for again.
    asked_again: Arc<AtomicBool>,
}

impl Known {
    fn new(price: Option<Price>, as_of: Instant) -> Self {
        Self { price, as_of, asked_again: Arc::default() }
    }
}

/// The way to prices: a cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Prices {
    recent: Cache<Sku, Known>,
    questions: mpsc::Sender<Question>,
}

/// SKUs whose prices somebody wants.
#[derive(Debug)]
struct Question {
    skus: Vec<Sku>,
    /// Nobody waits when a price is only asked for again.
    asker: Option<oneshot::Sender<Result<Found, Error>>>,
}

impl Question {
    fn is_wanted(&self) -> bool {
        self.asker.as_ref().is_none_or(|asker| !asker.is_closed())
    }
}

/// The task that asks the database for prices. It ends with the catalogue.
#[derive(Debug)]
pub struct PriceLoader {
    pool: PgPool,
    recent: Cache<Sku, Known>,
    questions: mpsc::Receiver<Question>,
    /// The price of a SKU that the catalogue does not have; such a SKU is refused without it.
    unknown_sku_price: Option<Money>,
}

impl Prices {
    pub(super) fn new(pool: PgPool, unknown_sku_price: Option<Money>) -> (Self, PriceLoader) {
        let recent = Cache::builder().max_capacity(PRICES_MAX).time_to_live(PRICE_AGE_MAX).build();
        let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
        let loader = PriceLoader { pool, recent: recent.clone(), questions, unknown_sku_price };
        (Self { recent, questions: sender }, loader)
    }

    /// The prices of SKUs, from memory where they are recent.
    pub(super) async fn of(&self, skus: BTreeSet<Sku>) -> Result<Found, Error> {
        let now = Instant::now();
        let mut prices = HashMap::with_capacity(skus.len());
        let (mut outdated, mut unknown) = (Vec::new(), Vec::new());
        for sku in skus {
            match self.recent.get(&sku).await {
                Some(Known { price: Some(price), as_of, asked_again }) if now - as_of < PRICE_AGE_MAX => {
                    // The first one who finds it outdated asks; all go on with what is known.
                    if now - as_of > PRICE_FRESH && !asked_again.swap(true, Ordering::Relaxed) {
                        outdated.push(sku.clone());
                    }
                    prices.insert(sku, price);
                }
                _ => unknown.push(sku),
            }
        }
        if !outdated.is_empty() {
            // Refused when too much is asked: then the price ends with its time, and the next one to want it waits.
            let _refused = self.questions.try_send(Question { skus: outdated, asker: None });
        }
        if !unknown.is_empty() {
            prices.extend(self.ask(unknown).await?);
        }
        Ok(prices)
    }

    async fn ask(&self, skus: Vec<Sku>) -> Result<Found, Error> {
        let (asker, answer) = oneshot::channel();
        self.questions.try_send(Question { skus, asker: Some(asker) }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Error::Overloaded,
            mpsc::error::TrySendError::Closed(_) => Error::CutOff,
        })?;
        let answer = timeout(PRICES_WAIT, answer).await.map_err(|_elapsed| Error::Overloaded)?;
        answer.map_err(|_loader_is_gone| Error::CutOff)?
    }

    /// Forgets the price of a SKU that may have changed by now. What an earlier question brings is not kept.
    pub(super) async fn forget(&self, sku: Sku) {
        remember(&self.recent, sku, Known::new(None, Instant::now())).await;
    }
}

/// Keeps what is known, unless something younger is.
async fn remember(recent: &Cache<Sku, Known>, sku: Sku, known: Known) {
    let younger = |kept: Option<moka::Entry<Sku, Known>>| match kept.map(moka::Entry::into_value) {
        Some(kept) if kept.as_of > known.as_of => ready(kept),
        _ => ready(known),
    };
    recent.entry(sku).and_upsert_with(younger).await;
}

impl PriceLoader {
    /// Runs until the catalogue is gone.
    ///
    /// # Errors
    ///
    /// None: a database that fails is a matter of the questions that meet it.
    pub async fn run(mut self) -> Result<(), Infallible> {
        while let Some(question) = self.questions.recv().await {
            let questions = self.with_those_that_wait(question);
            self.answer(questions).await;
        }
        Ok(())
    }

    /// As many of the questions that wait as go into one. Those whose askers have gone are dropped.
    fn with_those_that_wait(&mut self, first: Question) -> Vec<Question> {
        let mut skus = first.skus.len();
        let mut questions = vec![first];
        while skus < SKUS_AT_ONCE
            && let Ok(next) = self.questions.try_recv()
        {
            skus += next.skus.len();
            questions.push(next);
        }
        questions.retain(Question::is_wanted);
        questions
    }

    async fn answer(&self, questions: Vec<Question>) {
        let skus: BTreeSet<&Sku> = questions.iter().flat_map(|question| &question.skus).collect();
        if skus.is_empty() {
            return;
        }
        let as_of = Instant::now();
        let loaded = self.load(skus.iter().map(|sku| sku.as_str().to_owned()).collect()).await;
        if let Ok(loaded) = &loaded {
            for sku in skus {
                if let Ok(price) = self.price(loaded, sku) {
                    remember(&self.recent, sku.clone(), Known::new(Some(price), as_of)).await;
                }
            }
        }
        for Question { skus, asker } in questions {
            let Some(asker) = asker else { continue };
            let prices = loaded.clone().and_then(|loaded| {
                skus.into_iter().map(|sku| self.price(&loaded, &sku).map(|price| (sku, price))).collect()
            });
            // Whoever has gone away wants no answer.
            let _gone = asker.send(prices);
        }
    }

    /// Asks the database. A row that cannot be read is an error of its own SKU alone.
    async fn load(&self, skus: Vec<String>) -> Result<Arc<Loaded>, Error> {
        let rows: Result<Vec<Row>, sqlx::Error> = postgres::ask(&self.pool, ANSWER_DEADLINE, |connection| {
            Box::pin(async move {
                sqlx::query_as("select sku, unit_price_minor, currency, name from products where sku = any($1)")
                    .bind(skus)
                    .fetch_all(connection)
                    .await
            })
        })
        .await;
        let rows = rows.inspect_err(|error| tracing::warn!(error = %ErrorChain(error), "prices could not be read"))?;
        Ok(Arc::new(rows.into_iter().map(|row| (row.0.clone(), read(row).map(|product| product.unit_price))).collect()))
    }

    fn price(&self, loaded: &Loaded, sku: &Sku) -> Result<Price, Error> {
        match loaded.get(sku.as_str()) {
            Some(Ok(price)) => Ok(Some(*price)),
            Some(Err(error)) => Err(error.clone()),
            None => Ok(self.unknown_sku_price),
        }
    }
}
