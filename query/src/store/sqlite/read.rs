//! The API's questions. Lists walk an index by key, never by counting rows off.

use std::sync::Arc;

use domain::{Currency, CustomerId, OrderId, Sku, Version};
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::load::{CHECKPOINTS, hex};
use super::{Store, recent};
use crate::checkpoint::Checkpoints;
use crate::projections::cancellations::Reason;
use crate::store::answer::{
    CancellationFilter, CancellationTotals, CustomerTotals, DayTotals, Detail, Event, ListFilter, Listed, Page,
    ProductTotals, Prospect, Waiting,
};
use crate::store::list::Dialect;
use crate::store::record::{self, CustomerRecord, DayRecord, DetailRecord, EventRecord, ProductRecord};
use crate::store::{Error, cancellations, list};

const DIALECT: Dialect = Dialect { explain: "explain query plan ", filter_only: "+" };

impl Store {
    pub(crate) async fn checkpoints(&self) -> Result<Checkpoints, Error> {
        record::checkpoints(sqlx::query_as(CHECKPOINTS).fetch_all(&self.readers).await?)
    }

    pub(crate) async fn order(&self, id: OrderId) -> Result<Option<Detail>, Error> {
        if let Some(known) = self.recent.order(id) {
            return Ok(Some(known));
        }
        let epoch = self.recent.epoch();
        let found: Option<DetailRecord> = sqlx::query_as(
            "select o.version, o.document, p.cause, p.version from orders as o left join \
             (select cause, version from parked where order_id = ?1 and discarded_at is null \
             order by (cause = 'fork') desc, version limit 1) \
             as p on true where o.order_id = ?1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        let found = found.map(record::detail).transpose()?;
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
        let found = sqlx::query_scalar("select version from orders where order_id = ?1")
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
        let records: Vec<EventRecord> = sqlx::query_as(
            "select version, event_id, event_type, occurred_at, message, actor, correlation_id, causation_id \
             from order_history where order_id = ?1 order by version",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_all(&self.readers)
        .await?;
        record::all(records, record::event)
    }

    pub(crate) async fn list(&self, filter: &ListFilter, page: &Page, limit: u32) -> Result<Arc<Vec<Listed>>, Error> {
        let read = async {
            let mut query = list::page("", &DIALECT, filter, page, limit);
            record::all(query.build_query_as().fetch_all(&self.readers).await?, record::listed)
        };
        recent::read(&self.recent, (filter.clone(), *page, limit), read).await
    }

    pub(crate) async fn count(&self, filter: &ListFilter, most: u32) -> Result<i64, Error> {
        Ok(list::count(filter, most).build_query_scalar().fetch_one(&self.readers).await?)
    }

    pub(crate) async fn list_plan(&self, filter: &ListFilter, page: &Page, limit: u32) -> Result<Vec<String>, Error> {
        self.plan(list::page(DIALECT.explain, &DIALECT, filter, page, limit)).await
    }

    async fn plan(&self, mut query: QueryBuilder<Sqlite>) -> Result<Vec<String>, Error> {
        let rows = query.build().fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get(3)?)).collect()
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
