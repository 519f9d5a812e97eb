//! The API's questions. Lists walk an index by key, never by counting rows off.

use domain::{Currency, CustomerId, OrderId, Sku, Version};
use sqlx::{Postgres, QueryBuilder};

use super::Store;
use super::load::CHECKPOINTS;
use crate::checkpoint::Checkpoints;
use crate::store::Error;
use crate::store::answer::{CustomerTotals, DayTotals, Detail, Event, ListFilter, Listed, ProductTotals, Waiting};
use crate::store::record::{self, CustomerRecord, DayRecord, DetailRecord, EventRecord, Id, ProductRecord};

impl Store {
    pub(crate) async fn checkpoints(&self) -> Result<Checkpoints, Error> {
        record::checkpoints(sqlx::query_as(CHECKPOINTS).fetch_all(&self.readers).await?)
    }

    pub(crate) async fn order(&self, id: OrderId) -> Result<Option<Detail>, Error> {
        let found: Option<DetailRecord> = sqlx::query_as(
            "select o.version, o.document, p.cause, p.version from orders as o left join \
             (select cause, version from parked where order_id = $1 order by (cause = 'fork') desc, version limit 1) \
             as p on true where o.order_id = $1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        found.map(record::detail).transpose()
    }

    pub(crate) async fn waiting(&self, id: OrderId) -> Result<Option<Waiting>, Error> {
        let found: Option<(String, i64)> = sqlx::query_as(
            "select cause, version from parked where order_id = $1 order by (cause = 'fork') desc, version limit 1",
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

    pub(crate) async fn list(&self, filter: &ListFilter, limit: u32) -> Result<Vec<Listed>, Error> {
        let mut query = QueryBuilder::<Postgres>::new("select created_at, order_id, document from orders where true");
        if let Some(status) = filter.status {
            query.push(" and status = ").push_bind(status.as_str());
        }
        if let Some(customer) = &filter.customer_id {
            query.push(" and customer_id = ").push_bind(customer.as_str().to_owned());
        }
        if let Some(sku) = &filter.sku {
            query
                .push(" and exists (select 1 from json_array_elements(document::json -> 'items') as item where item ->> 'sku' = ")
                .push_bind(sku.as_str().to_owned())
                .push(")");
        }
        if let Some(currency) = filter.currency {
            query.push(" and currency = ").push_bind(currency.code().to_owned());
        }
        let bounds = [
            (" and created_at >= ", filter.created_from_micros),
            (" and created_at <= ", filter.created_to_micros),
            (" and total_minor >= ", filter.min_total_minor),
            (" and total_minor <= ", filter.max_total_minor),
        ];
        for (condition, bound) in bounds {
            if let Some(bound) = bound {
                query.push(condition).push_bind(bound);
            }
        }
        if let Some((created_at, id)) = filter.after {
            query.push(" and (created_at, order_id) < (").push_bind(created_at).push(", ");
            query.push_bind(id.0.as_bytes().to_vec()).push(")");
        }
        query.push(" order by created_at desc, order_id desc limit ").push_bind(i64::from(limit));
        let records: Vec<(i64, Id, String)> = query.build_query_as().fetch_all(&self.readers).await?;
        record::all(records, record::listed)
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
}
