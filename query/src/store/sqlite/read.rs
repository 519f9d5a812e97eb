//! The API's questions. Lists walk an index by key, never by counting rows off.

use domain::order::Status;
use domain::{Currency, CustomerId, OrderId, Sku, Version};
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::Store;
use super::load::{order_id, parse, version};
use crate::store::Error;
use crate::sum::Sum;

/// An order as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// How many of its events are applied.
    pub version: Version,
    /// The stored document.
    pub document: String,
    /// Why and from which version on its events wait, if any do.
    pub waiting: Option<Waiting>,
}

/// Events that are known and not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The stable name of the cause.
    pub cause: String,
    /// The first waiting version.
    pub version: Version,
}

/// An event as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order's history.
    pub version: Version,
    /// Its identity.
    pub event_id: uuid::Uuid,
    /// Its type.
    pub event_type: String,
    /// When it happened, in microseconds.
    pub occurred_at_micros: i64,
    /// The exact message.
    pub message: String,
    /// Who caused it.
    pub actor: Option<String>,
    /// The conversation it belongs to.
    pub correlation_id: Option<String>,
    /// What caused it.
    pub causation_id: Option<String>,
}

/// Which orders a list shows, newest first.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// In this status.
    pub status: Option<Status>,
    /// Of this customer.
    pub customer_id: Option<CustomerId>,
    /// With this product among its items.
    pub sku: Option<Sku>,
    /// Placed at or after this time, in microseconds.
    pub created_from_micros: Option<i64>,
    /// Placed at or before this time, in microseconds.
    pub created_to_micros: Option<i64>,
    /// In this currency.
    pub currency: Option<Currency>,
    /// Costing at least this much, in minor units.
    pub min_total_minor: Option<i64>,
    /// Costing at most this much, in minor units.
    pub max_total_minor: Option<i64>,
    /// After this order, in list order.
    pub after: Option<(i64, OrderId)>,
}

/// An order in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Where it stands in the list.
    pub key: (i64, OrderId),
    /// The stored document.
    pub document: String,
}

/// A customer's totals in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CustomerTotals {
    /// Who.
    pub customer_id: CustomerId,
    /// In which currency.
    pub currency: Currency,
    /// Orders placed.
    pub orders: i64,
    /// Orders given up.
    pub cancellations: i64,
    /// Paid minus refunded.
    pub spend: Sum,
    /// When the newest order was placed, in microseconds, and which it is.
    pub last_order: (i64, OrderId),
}

/// A day's totals in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayTotals {
    /// Days since 1970-01-01.
    pub day: i64,
    /// In which currency.
    pub currency: Currency,
    /// Orders placed.
    pub orders: i64,
    /// Orders given up.
    pub cancellations: i64,
    /// Payments minus refunds.
    pub revenue: Sum,
}

/// The demand for one SKU in one currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductTotals {
    /// What.
    pub sku: Sku,
    /// In which currency.
    pub currency: Currency,
    /// Pieces wanted.
    pub units: i64,
    /// Price times pieces, where the price is known.
    pub revenue: Sum,
}

impl Store {
    /// One order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn order(&self, id: OrderId) -> Result<Option<Detail>, Error> {
        let row = sqlx::query(
            "select o.version, o.document, p.cause, p.version from orders as o left join \
             (select cause, version from parked where order_id = ?1 order by (cause = 'fork') desc, version limit 1) \
             as p on true where o.order_id = ?1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let waiting = match row.try_get::<Option<String>, _>(2)? {
            Some(cause) => Some(Waiting { cause, version: version(&row, 3)? }),
            None => None,
        };
        Ok(Some(Detail { version: version(&row, 0)?, document: row.try_get(1)?, waiting }))
    }

    /// Why and from which version on an order's events wait, if any do.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn waiting(&self, id: OrderId) -> Result<Option<Waiting>, Error> {
        let row = sqlx::query(
            "select cause, version from parked where order_id = ?1 order by (cause = 'fork') desc, version limit 1",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(|row| Ok(Waiting { cause: row.try_get(0)?, version: version(row, 1)? })).transpose()
    }

    /// How many of an order's events are applied; none when it is not known.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn order_version(&self, id: OrderId) -> Result<Option<Version>, Error> {
        let row = sqlx::query("select version from orders where order_id = ?1")
            .bind(id.0.as_bytes().as_slice())
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(|row| version(row, 0)).transpose()
    }

    /// Every applied event of an order, in version order; none when it is not known.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn history(&self, id: OrderId) -> Result<Vec<Event>, Error> {
        let rows = sqlx::query(
            "select version, event_id, event_type, occurred_at, message, actor, correlation_id, causation_id \
             from order_history where order_id = ?1 order by version",
        )
        .bind(id.0.as_bytes().as_slice())
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &SqliteRow| {
            Ok(Event {
                version: version(row, 0)?,
                event_id: order_id(row, 1)?.0,
                event_type: row.try_get(2)?,
                occurred_at_micros: row.try_get(3)?,
                message: row.try_get(4)?,
                actor: row.try_get(5)?,
                correlation_id: row.try_get(6)?,
                causation_id: row.try_get(7)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// The first `limit` orders of a list.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn list(&self, filter: &ListFilter, limit: u32) -> Result<Vec<Listed>, Error> {
        let mut query = QueryBuilder::<Sqlite>::new("select created_at, order_id, document from orders where true");
        if let Some(status) = filter.status {
            query.push(" and status = ").push_bind(status.as_str());
        }
        if let Some(customer) = &filter.customer_id {
            query.push(" and customer_id = ").push_bind(customer.as_str().to_owned());
        }
        if let Some(sku) = &filter.sku {
            query
                .push(" and exists (select 1 from json_each(document, '$.items') as item where item.value ->> 'sku' = ")
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
        query.push(" order by created_at desc, order_id desc limit ").push_bind(limit);
        let rows = query.build().fetch_all(&self.readers).await?;
        let read =
            |row: &SqliteRow| Ok(Listed { key: (row.try_get(0)?, order_id(row, 1)?), document: row.try_get(2)? });
        rows.iter().map(read).collect()
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
        let rows = sqlx::query(
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
        let read = |row: &SqliteRow| {
            Ok(CustomerTotals {
                customer_id: parse(row, 0, "a customer")?,
                currency: parse(row, 1, "a customer's currency")?,
                orders: row.try_get(2)?,
                cancellations: row.try_get(3)?,
                spend: parse(row, 4, "a customer's spend")?,
                last_order: (row.try_get(5)?, order_id(row, 6)?),
            })
        };
        rows.iter().map(read).collect()
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
        let (after_day, after_currency) =
            after.map_or((i64::MIN, String::new()), |(day, currency)| (day, currency.into()));
        let rows = sqlx::query(
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
        let read = |row: &SqliteRow| {
            Ok(DayTotals {
                day: row.try_get(0)?,
                currency: parse(row, 1, "a day's currency")?,
                orders: row.try_get(2)?,
                cancellations: row.try_get(3)?,
                revenue: parse(row, 4, "a day's revenue")?,
            })
        };
        rows.iter().map(read).collect()
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
        let (after_sku, after_currency) =
            after.map_or(("", String::new()), |(sku, currency)| (sku.as_str(), currency.into()));
        let rows = sqlx::query(
            "select sku, currency, units, revenue_minor from product_demand \
             where (?1 is null or sku = ?1) and (sku, currency) > (?2, ?3) order by sku, currency limit ?4",
        )
        .bind(only.map(Sku::as_str))
        .bind(after_sku)
        .bind(after_currency)
        .bind(limit)
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &SqliteRow| {
            Ok(ProductTotals {
                sku: parse(row, 0, "a product")?,
                currency: parse(row, 1, "a product's currency")?,
                units: row.try_get(2)?,
                revenue: parse(row, 3, "a product's revenue")?,
            })
        };
        rows.iter().map(read).collect()
    }
}
