//! The API's questions. Lists walk an index by key, never by counting rows off.

use std::time::Duration;

use bytes::Bytes;
use domain::{Currency, CustomerId, OrderId, Sku, Version};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, OptionalExtension as _, Row, ToSql, params, params_from_iter};

use super::load::{CHECKPOINTS, hex};
use super::{Store, recent};
use crate::checkpoint::Checkpoints;
use crate::projections::cancellations::Reason;
use crate::store::answer::{
    CancellationFilter, CancellationTotals, CustomerTotals, DayTotals, Detail, Event, ListFilter, Listed, Page,
    ProductTotals, Prospect, Waiting,
};
use crate::store::list::{Dialect, Question, Value};
use crate::store::record::{self, CustomerRecord, DayRecord, ProductRecord};
use crate::store::{Error, cancellations, list};

const DIALECT: Dialect = Dialect { explain: "explain query plan ", filter_only: "+" };

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Id(id) => id.0.as_bytes().to_sql(),
            Self::Integer(integer) => integer.to_sql(),
        }
    }
}

/// One order, and why its events wait, if any do.
fn order(connection: &Connection, id: OrderId) -> Result<Option<Detail>, Error> {
    let mut statement = connection.prepare_cached(
        "select o.version, o.document, p.cause, p.version from orders as o left join \
         (select cause, version from parked where order_id = ?1 and discarded_at is null \
         order by (cause = 'fork') desc, version limit 1) \
         as p on true where o.order_id = ?1",
    )?;
    let mut rows = statement.query([id.0.as_bytes()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let waiting = row.get::<_, Option<String>>(2)?.zip(row.get(3)?).map(record::waiting).transpose()?;
    let document = Bytes::copy_from_slice(text(row, 1)?);
    Ok(Some(Detail { version: record::version(row.get(0)?)?, document, waiting }))
}

/// A page, of which each document is copied once: into the answer.
fn orders(connection: &Connection, question: &Question, limit: u32) -> Result<Listed, Error> {
    let mut statement = connection.prepare_cached(&question.text)?;
    let mut rows = statement.query(params_from_iter(&question.values))?;
    let mut page = list::Reading::new(limit);
    while let Some(row) = rows.next()? {
        if page.is_full() {
            return Ok(page.done(true));
        }
        let key = || {
            let id = row.get_ref(1)?.as_blob().map_err(Error::corrupt("an id"))?;
            Ok((row.get(0)?, record::id(id)?))
        };
        page.add(text(row, 2)?, key)?;
    }
    Ok(page.done(false))
}

/// The bytes of a text as they are stored: they were written as UTF-8, and nobody here looks into them.
fn text<'r>(row: &'r Row<'_>, column: usize) -> Result<&'r [u8], Error> {
    row.get_ref(column)?.as_bytes().map_err(Error::corrupt("a document"))
}

impl Store {
    pub(crate) async fn checkpoints(&self) -> Result<Checkpoints, Error> {
        record::checkpoints(sqlx::query_as(CHECKPOINTS).fetch_all(&self.readers).await?)
    }

    pub(crate) async fn order(&self, id: OrderId) -> Result<Option<Detail>, Error> {
        if let Some(known) = self.recent.order(id) {
            return Ok(Some(known));
        }
        let epoch = self.recent.epoch();
        let found = self.direct.quick(move |connection| order(connection, id)).await?;
        if let Some(detail) = &found {
            self.recent.keep(id, detail, epoch);
        }
        Ok(found)
    }

    pub(crate) async fn waiting(&self, id: OrderId) -> Result<Option<Waiting>, Error> {
        let found: Option<(String, i64)> = sqlx::query_as(
            "select cause, version from parked where order_id = ?1 and discarded_at is null \
             order by (cause = 'fork') desc, version limit 1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        found.map(record::waiting).transpose()
    }

    pub(crate) async fn order_version(&self, id: OrderId) -> Result<Option<Version>, Error> {
        if let Some(known) = self.recent.order(id) {
            return Ok(Some(known.version));
        }
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached("select version from orders where order_id = ?1")?;
            let found = statement.query_row([id.0.as_bytes()], |row| row.get(0)).optional()?;
            found.map(record::version).transpose()
        };
        self.direct.quick(read).await
    }

    pub(crate) async fn prospect(&self, id: OrderId, wanted: Version) -> Result<Prospect, Error> {
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(record::PROSPECT)?;
            let found = statement.query_row(params![id.0.as_bytes(), i64::from(wanted)], |row| row.try_into())?;
            record::prospect(found)
        };
        self.direct.quick(read).await
    }

    pub(crate) async fn order_versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, Version)>, Error> {
        let ids: Vec<_> = ids.iter().copied().map(hex).collect();
        let records = sqlx::query_as(
            "select o.order_id, o.version from json_each(?1) as k cross join orders as o on o.order_id = unhex(k.value)",
        )
        .bind(serde_json::to_string(&ids)?)
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::known_version)
    }

    pub(crate) async fn history(&self, id: OrderId) -> Result<Vec<Event>, Error> {
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(
                "select version, event_id, event_type, occurred_at, message, actor, correlation_id, causation_id \
                 from order_history where order_id = ?1 order by version",
            )?;
            let records = statement.query_map([id.0.as_bytes()], |row| row.try_into())?;
            records.map(|record| record::event(record?)).collect()
        };
        self.direct.quick(read).await
    }

    pub(crate) async fn list(
        &self,
        filter: &ListFilter,
        page: &Page,
        limit: u32,
        budget: Duration,
    ) -> Result<Listed, Error> {
        let read = async {
            let question = list::page("", &DIALECT, filter, page, limit.saturating_add(1));
            let read = move |connection: &Connection| orders(connection, &question, limit);
            if list::is_direct(filter, page) {
                self.direct.quick(read).await
            } else {
                self.direct.long(budget, read).await
            }
        };
        recent::read(&self.recent, (filter.clone(), *page, limit), read).await
    }

    pub(crate) async fn count(&self, filter: &ListFilter, most: u32, budget: Duration) -> Result<i64, Error> {
        let question = list::count(filter, most);
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare_cached(&question.text)?;
            Ok(statement.query_row(params_from_iter(&question.values), |row| row.get(0))?)
        };
        self.direct.long(budget, read).await
    }

    pub(crate) async fn list_plan(&self, filter: &ListFilter, page: &Page, limit: u32) -> Result<Vec<String>, Error> {
        let question = list::page(DIALECT.explain, &DIALECT, filter, page, limit);
        let read = move |connection: &Connection| {
            let mut statement = connection.prepare(&question.text)?;
            let lines = statement.query_map(params_from_iter(&question.values), |row| row.get(3))?;
            Ok(lines.collect::<Result<_, _>>()?)
        };
        self.direct.quick(read).await
    }

    pub(crate) async fn customers(
        &self,
        only: Option<&CustomerId>,
        after: Option<&CustomerId>,
        limit: u32,
    ) -> Result<Vec<CustomerTotals>, Error> {
        let records: Vec<CustomerRecord> = sqlx::query_as(
            "select customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id \
             from customers where customer_id in (select distinct customer_id from customers \
             where customer_id > ?1 and (?2 is null or customer_id = ?2) order by customer_id limit ?3) \
             order by customer_id, currency",
        )
        .bind(after.map_or("", CustomerId::as_str))
        .bind(only.map(CustomerId::as_str))
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::customer_totals)
    }

    pub(crate) async fn daily_sales(
        &self,
        from: i64,
        to: i64,
        currency: Option<Currency>,
        after: Option<(i64, Currency)>,
        limit: u32,
    ) -> Result<Vec<DayTotals>, Error> {
        let (after_day, after_currency) =
            after.map_or((i64::MIN, String::new()), |(day, currency)| (day, currency.into()));
        let records: Vec<DayRecord> = sqlx::query_as(
            "select day, currency, orders, cancellations, revenue_minor from daily_sales \
             where day between ?1 and ?2 and (?3 is null or currency = ?3) and (day, currency) > (?4, ?5) \
             order by day, currency limit ?6",
        )
        .bind(from)
        .bind(to)
        .bind(currency.map(String::from))
        .bind(after_day)
        .bind(after_currency)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::day_totals)
    }

    pub(crate) async fn products(
        &self,
        only: Option<&Sku>,
        after: Option<(&Sku, Currency)>,
        limit: u32,
    ) -> Result<Vec<ProductTotals>, Error> {
        let (after_sku, after_currency) =
            after.map_or(("", String::new()), |(sku, currency)| (sku.as_str(), currency.into()));
        let records: Vec<ProductRecord> = sqlx::query_as(
            "select sku, currency, units, revenue_minor from product_demand \
             where (?1 is null or sku = ?1) and (sku, currency) > (?2, ?3) order by sku, currency limit ?4",
        )
        .bind(only.map(Sku::as_str))
        .bind(after_sku)
        .bind(after_currency)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::product_totals)
    }

    pub(crate) async fn cancellations(
        &self,
        filter: &CancellationFilter,
        after: Option<&(i64, CustomerId, Reason)>,
        limit: u32,
    ) -> Result<Vec<CancellationTotals>, Error> {
        let records = cancellations::page(filter, after, limit).build_query_as().fetch_all(&self.readers).await?;
        record::all(records, record::cancellation_totals)
    }
}
