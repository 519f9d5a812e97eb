//! The API's questions. Lists walk an index by key, never by counting rows off.

use std::time::Duration;

use domain::{Currency, CustomerId, OrderId, Sku, Version};
use sqlx::postgres::PgArguments;
use sqlx::{Arguments as _, AssertSqlSafe};

use super::Store;
use super::load::CHECKPOINTS;
use crate::checkpoint::Checkpoints;
use crate::projections::cancellations::Reason;
use crate::store::answer::{
    CancellationFilter, CancellationTotals, CustomerTotals, DayTotals, Detail, Event, ListFilter, Listed, Page,
    ProductTotals, Prospect, Waiting,
};
use crate::store::list::{Dialect, Question, Value};
use crate::store::record::{self, CustomerRecord, DayRecord, DetailRecord, EventRecord, Id, ProductRecord};
use crate::store::{Error, cancellations, list};

const DIALECT: Dialect = Dialect { explain: "explain ", filter_only: "" };

/// The values of a question.
fn arguments(values: Vec<Value>) -> Result<PgArguments, Error> {
    let mut arguments = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Text(text) => arguments.add(text),
            Value::Id(id) => arguments.add(id.0.as_bytes().as_slice()),
            Value::Integer(integer) => arguments.add(integer),
        };
        added.map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

impl Store {
    pub(crate) async fn checkpoints(&self) -> Result<Checkpoints, Error> {
        record::checkpoints(sqlx::query_as(CHECKPOINTS).fetch_all(&self.readers).await?)
    }

    pub(crate) async fn order(&self, id: OrderId) -> Result<Option<Detail>, Error> {
        let found: Option<DetailRecord> = sqlx::query_as(
            "select o.version, o.document, p.cause, p.version from orders as o left join \
             (select cause, version from parked where order_id = $1 and discarded_at is null \
             order by (cause = 'fork') desc, version limit 1) \
             as p on true where o.order_id = $1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        found.map(record::detail).transpose()
    }

    pub(crate) async fn waiting(&self, id: OrderId) -> Result<Option<Waiting>, Error> {
        let found: Option<(String, i64)> = sqlx::query_as(
            "select cause, version from parked where order_id = $1 and discarded_at is null \
             order by (cause = 'fork') desc, version limit 1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        found.map(record::waiting).transpose()
    }

    pub(crate) async fn order_version(&self, id: OrderId) -> Result<Option<Version>, Error> {
        let found = sqlx::query_scalar("select version from orders where order_id = $1")
            .bind(id.0.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await?;
        found.map(record::version).transpose()
    }

    pub(crate) async fn prospect(&self, id: OrderId, wanted: Version) -> Result<Prospect, Error> {
        let found = sqlx::query_as(record::PROSPECT)
            .bind(id.0.as_bytes().as_slice())
            .bind(i64::from(wanted))
            .fetch_one(&self.readers)
            .await?;
        record::prospect(found)
    }

    pub(crate) async fn order_versions(&self, ids: &[OrderId]) -> Result<Vec<(OrderId, Version)>, Error> {
        let ids: Vec<_> = ids.iter().map(|id| id.0.into_bytes()).collect();
        let records = sqlx::query_as("select order_id, version from orders where order_id = any($1)")
            .bind(ids)
            .fetch_all(&self.readers)
            .await?;
        record::all(records, record::known_version)
    }

    pub(crate) async fn history(&self, id: OrderId) -> Result<Vec<Event>, Error> {
        let records: Vec<EventRecord> = sqlx::query_as(
            "select version, event_id, event_type, occurred_at, message, actor, correlation_id, causation_id \
             from order_history where order_id = $1 order by version",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::event)
    }

    pub(crate) async fn list(
        &self,
        filter: &ListFilter,
        page: &Page,
        limit: u32,
        budget: Duration,
    ) -> Result<Listed, Error> {
        let Question { text, values } = list::page("", &DIALECT, filter, page, limit.saturating_add(1));
        let query = sqlx::query_as_with(AssertSqlSafe(text), arguments(values)?);
        let records: Vec<(i64, Id, String)> = if list::is_direct(filter, page) {
            query.fetch_all(&self.readers).await?
        } else {
            self.long(budget).await?.ask(async |connection| query.fetch_all(&mut **connection).await).await?
        };
        let mut page = list::Reading::new(limit);
        for (key, id, document) in records {
            if page.is_full() {
                return Ok(page.done(true));
            }
            page.add(document.as_bytes(), || Ok((key, record::order_id(id)?)))?;
        }
        Ok(page.done(false))
    }

    pub(crate) async fn count(&self, filter: &ListFilter, most: u32, budget: Duration) -> Result<i64, Error> {
        let Question { text, values } = list::count(filter, most);
        let query = sqlx::query_scalar_with(AssertSqlSafe(text), arguments(values)?);
        self.long(budget).await?.ask(async |connection| query.fetch_one(&mut **connection).await).await
    }

    pub(crate) async fn list_plan(&self, filter: &ListFilter, page: &Page, limit: u32) -> Result<Vec<String>, Error> {
        let Question { text, values } = list::page(DIALECT.explain, &DIALECT, filter, page, limit);
        let query = sqlx::query_scalar_with(AssertSqlSafe(text), arguments(values)?);
        Ok(query.fetch_all(&self.readers).await?)
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
             where customer_id > $1 and ($2::text is null or customer_id = $2) order by customer_id limit $3) \
             order by customer_id, currency",
        )
        .bind(after.map_or("", CustomerId::as_str))
        .bind(only.map(CustomerId::as_str))
        .bind(i64::from(limit))
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
             where day between $1 and $2 and ($3::text is null or currency = $3) and (day, currency) > ($4, $5) \
             order by day, currency limit $6",
        )
        .bind(from)
        .bind(to)
        .bind(currency.map(String::from))
        .bind(after_day)
        .bind(after_currency)
        .bind(i64::from(limit))
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
             where ($1::text is null or sku = $1) and (sku, currency) > ($2, $3) order by sku, currency limit $4",
        )
        .bind(only.map(Sku::as_str))
        .bind(after_sku)
        .bind(after_currency)
        .bind(i64::from(limit))
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
