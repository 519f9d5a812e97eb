//! `GET /orders` and `GET /orders/{id}`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use chassis::http::extract::{Path, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::{Outcome, Problem};
use chrono::{DateTime, Utc};
use domain::order::Status;
use domain::time::Timestamp;
use domain::{Currency, CustomerId, Money, OrderId, Sku, Version};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caching::{Holds, Tag};
use super::cursor::OrderKey;
use super::describe::{Conditional, Waits};
use super::fresh::{Seen, until_fresh};
use super::{Api, cursor, describe, failed, invalid_query, page, stale, unknown_order, unknown_version};
use crate::store::answer::{Detail, ListFilter, Page, Sort};
use crate::store::{self, list};
use crate::time_travel::{self, Moment};

/// 422 for a list that passes by more orders than its time allows: names the parameters that no index helps.
fn failed_list(error: store::Error, filter: &ListFilter, page: &Page) -> Problem {
    if !matches!(error, store::Error::OverBudget) {
        return failed(error);
    }
    let unaided = list::unaided(filter, page);
    let names = if unaided.is_empty() { "count".to_owned() } else { unaided.join(", ") };
    let why = "no index helps with it: every order that the others leave is looked at";
    let detail = format!("the list takes longer than it may; no index helps with {names}: ask for less, or without");
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "list-too-long", "The list takes too long", detail);
    let problem = problem.outcome(Outcome::NotExecuted);
    let named = if unaided.is_empty() { vec!["count"] } else { unaided };
    named.into_iter().fold(problem, |problem, name| problem.error(name, "unaided", why))
}

/// The most orders that are counted.
const COUNT_MAX: u32 = 100_000;
/// How many orders there are on all pages.
const TOTAL_COUNT: HeaderName = HeaderName::from_static("x-total-count");

/// How a list may be sorted.
pub(super) const SORTS: [(&str, Sort); 4] =
    [("-created_at", Sort::Newest), ("created_at", Sort::Oldest), ("-total", Sort::Dearest), ("total", Sort::Cheapest)];

/// Which orders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Orders in this status
    #[param(schema_with = describe::status)]
    status: Option<String>,
    /// Orders of this customer
    #[param(schema_with = describe::customer_id)]
    customer_id: Option<CustomerId>,
    /// Orders with this product among their items
    #[param(schema_with = describe::sku)]
    sku: Option<Sku>,
    /// Placed at this time or later
    #[param(value_type = Option<DateTime<Utc>>)]
    created_from: Option<Timestamp>,
    /// Placed at this time or earlier
    #[param(value_type = Option<DateTime<Utc>>)]
    created_to: Option<Timestamp>,
    /// Costing at least this, in `currency`
    #[param(schema_with = describe::decimal)]
    min_total: Option<String>,
    /// Costing at most this, in `currency`
    #[param(schema_with = describe::decimal)]
    max_total: Option<String>,
    /// ISO 4217; `min_total` and `max_total` without it are in the default currency
    #[param(schema_with = describe::currency)]
    currency: Option<Currency>,
    /// `-created_at` (newest first) unless given; totals are those of one currency
    #[param(schema_with = describe::sort)]
    sort: Option<String>,
    /// Tell the number of orders on all pages in `X-Total-Count`: exact up to 100000, beyond it `100000+`
    #[serde(default)]
    count: bool,
    /// Orders per page; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
    /// Wait until this order is applied at this version, as `ORDER_ID:VERSION` from a command's answer
    #[param(schema_with = describe::seen)]
    after: Option<Seen>,
    /// Where the page begins, from the `Link` of the page before
    cursor: Option<String>,
}

impl ListQuery {
    fn filter(&self, default_currency: Currency) -> Result<ListFilter, Problem> {
        let status = self.status.as_deref().map(|name| {
            Status::parse(name)
                .ok_or_else(|| invalid_query("status", "must be CREATED, PAID, SHIPPED, DELIVERED or CANCELLED"))
        });
        let by_total = self.min_total.is_some() || self.max_total.is_some() || !self.sort()?.is_by_creation();
        let amounts_in = self.currency.unwrap_or(default_currency);
        let minor = |parameter, amount: &Option<String>| match amount {
            None => Ok(None),
            Some(text) => Money::parse(text, amounts_in)
                .map(|money| Some(money.minor()))
                .map_err(|error| invalid_query(parameter, error.to_string())),
        };
        Ok(ListFilter {
            status: status.transpose()?,
            customer_id: self.customer_id.clone(),
            sku: self.sku.clone(),
            created_from_micros: self.created_from.map(|at| at.utc().timestamp_micros()),
            created_to_micros: self.created_to.map(|at| at.utc().timestamp_micros()),
            // An amount is an amount of something.
            currency: if by_total { Some(amounts_in) } else { self.currency },
            min_total_minor: minor("min_total", &self.min_total)?,
            max_total_minor: minor("max_total", &self.max_total)?,
        })
    }

    fn sort(&self) -> Result<Sort, Problem> {
        let Some(asked) = self.sort.as_deref() else { return Ok(Sort::default()) };
        let found = SORTS.iter().find(|(name, _)| *name == asked).map(|(_, sort)| *sort);
        found.ok_or_else(|| invalid_query("sort", "must be created_at, -created_at, total or -total"))
    }

    fn page(&self) -> Result<Page, Problem> {
        let sort = self.sort()?;
        let after: Option<OrderKey> = cursor::decode(self.cursor.as_deref())?;
        match after {
            Some(after) if after.sort != sort => Err(cursor::invalid()),
            after => Ok(Page { sort, after: after.map(|after| after.key) }),
        }
    }
}

/// An order.
#[derive(ToSchema)]
#[schema(as = Order)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct OrderDocument {
    order_id: Uuid,
    #[schema(schema_with = describe::customer_id)]
    customer_id: String,
    #[schema(schema_with = describe::status)]
    status: String,
    /// How many events of the order are applied
    version: u32,
    items: Vec<ItemDocument>,
    /// Exact, with all digits of the currency
    #[schema(schema_with = describe::amount)]
    total: f64,
    #[schema(schema_with = describe::currency)]
    currency: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    #[schema(nullable = false)]
    paid: Option<PaidDocument>,
    #[schema(nullable = false)]
    shipped: Option<ShippedDocument>,
    #[schema(nullable = false)]
    delivered_at: Option<DateTime<Utc>>,
    #[schema(nullable = false)]
    cancelled: Option<CancelledDocument>,
    #[schema(nullable = false)]
    refunded: Option<RefundedDocument>,
    /// There are later events that cannot be applied
    #[schema(nullable = false)]
    stale: Option<StaleDocument>,
}

/// The payment of an order.
#[derive(ToSchema)]
#[schema(as = Paid)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct PaidDocument {
    #[schema(schema_with = describe::amount)]
    amount: f64,
    at: DateTime<Utc>,
    /// Where known
    #[schema(nullable = false)]
    payment_reference: Option<String>,
}

/// How an order left.
#[derive(ToSchema)]
#[schema(as = Shipped)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct ShippedDocument {
    at: DateTime<Utc>,
    /// Where known
    #[schema(nullable = false)]
    carrier: Option<String>,
    /// Where known
    #[schema(nullable = false)]
    tracking_number: Option<String>,
}

/// Why an order was given up.
#[derive(ToSchema)]
#[schema(as = Cancelled)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct CancelledDocument {
    at: DateTime<Utc>,
    reason: String,
}

/// What was paid back.
#[derive(ToSchema)]
#[schema(as = Refunded)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct RefundedDocument {
    #[schema(schema_with = describe::amount)]
    amount: f64,
    at: DateTime<Utc>,
}

/// Why later events of an order wait.
#[derive(ToSchema)]
#[schema(as = Stale)]
#[expect(dead_code, reason = "describes what is added to the stored documents as it is sent")]
pub(super) struct StaleDocument {
    /// hole, newer or fork
    cause: String,
    waiting_since_version: u32,
}

/// A line of an order.
#[derive(ToSchema)]
#[schema(as = Item)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct ItemDocument {
    #[schema(schema_with = describe::sku)]
    sku: String,
    #[schema(schema_with = describe::quantity)]
    quantity: u32,
    /// Left out where the order came without prices
    #[schema(schema_with = describe::amount)]
    unit_price: Option<f64>,
}

/// Lists orders, newest first unless sorted otherwise.
#[utoipa::path(
    get,
    path = "/orders",
    operation_id = "list_orders",
    tag = "orders",
    params(ListQuery, Waits),
    responses((status = 200, description = "A page", body = Vec<OrderDocument>, headers(("Link"), ("X-Total-Count"))))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
    RawQuery(raw): RawQuery,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let (filter, order) = (query.filter(api.default_currency)?, query.page()?);
    until_fresh(&api, peer, query.after, &headers).await?;
    let _permit = api.reads.try_enter_for(peer)?;
    let listed = api.store.list(&filter, &order, limit).await.map_err(|error| failed_list(error, &filter, &order))?;
    let mut response = page::json(listed.documents);
    if let Some(key) = listed.next {
        cursor::link_next(&mut response, "/orders", raw.as_deref(), &OrderKey { sort: order.sort, key });
    }
    if query.count {
        let count = api.store.count(&filter, COUNT_MAX + 1).await;
        let count = count.map_err(|error| failed_list(error, &filter, &order))?;
        let text = if count > i64::from(COUNT_MAX) { format!("{COUNT_MAX}+") } else { count.to_string() };
        // Digits and a plus are a header value.
        response.headers_mut().extend(HeaderValue::try_from(text).ok().map(|count| (TOTAL_COUNT, count)));
    }
    Ok(response)
}

/// How fresh an answer has to be, or how old.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DetailQuery {
    /// Wait until this version of the order is applied
    min_version: Option<u32>,
    /// The order as it was at this version
    as_of_version: Option<u32>,
    /// The order as it was at this time
    #[param(value_type = Option<DateTime<Utc>>)]
    as_of: Option<Timestamp>,
}

impl DetailQuery {
    fn moment(&self) -> Result<Option<Moment>, Problem> {
        match (self.as_of_version, self.as_of) {
            (Some(_), Some(_)) => Err(invalid_query("as_of", "cannot be asked together with as_of_version")),
            (Some(version), None) => Ok(Some(Moment::Version(Version(version)))),
            (None, time) => Ok(time.map(|time| Moment::Time(time.utc()))),
        }
    }
}

/// Shows one order, as it is or as it was.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    operation_id = "get_order",
    tag = "orders",
    params(("id" = Uuid, Path, description = "The order"), DetailQuery, Waits, Conditional),
    responses(
        (status = 200, description = "The order; `ETag` is its version", body = OrderDocument, headers(("ETag"))),
        (status = 304, description = "As it was: `If-None-Match` has its version", headers(("ETag"))),
    )
)]
pub(super) async fn detail(
    State(api): State<Arc<Api>>,
    Path(id): Path<Uuid>,
    Query(query): Query<DetailQuery>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order_id = OrderId(id);
    let moment = query.moment()?;
    until_fresh(&api, peer, Seen::min_version(order_id, query.min_version), &headers).await?;
    let _permit = api.reads.try_enter_for(peer)?;
    if let Some(Moment::Version(version)) = moment {
        let tag = Tag::new(version, Holds::ForEver);
        // What the client has is not folded again, as long as it is a version that there is.
        if version >= Version::FIRST && tag.is_known(&headers) {
            let reached = api.store.order_version(order_id).await.map_err(failed)?;
            if reached.is_some_and(|reached| version <= reached) {
                return Ok(tag.not_modified());
            }
        }
    }
    let detail = match moment {
        Some(moment) => past(&api, order_id, moment).await?,
        None => match api.store.order(order_id).await.map_err(failed)? {
            Some(detail) => detail,
            None => return Err(unknown_order(&api, order_id).await),
        },
    };
    let holds = if matches!(moment, Some(Moment::Version(_))) { Holds::ForEver } else { Holds::ForNow };
    let stale = detail.waiting.as_ref().map_or("", |_waiting| "-stale");
    let tag = Tag::new(format_args!("{}{stale}", detail.version), holds);
    if tag.is_known(&headers) {
        return Ok(tag.not_modified());
    }
    Ok(tag.on(page::json(document(detail))))
}

/// The order as it was, by folding its first events again.
async fn past(api: &Api, order_id: OrderId, moment: Moment) -> Result<Detail, Problem> {
    let history = api.store.history(order_id).await.map_err(failed)?;
    if history.is_empty() {
        return Err(unknown_order(api, order_id).await);
    }
    let row = time_travel::at(&history, moment, api.default_currency).map_err(failed)?;
    let row = row.ok_or_else(|| unknown_version(order_id, moment))?;
    let document = row.to_document().map_err(|error| failed(error.into()))?;
    Ok(Detail { version: row.version, document: document.into(), waiting: None })
}

/// The stored document; an order that has events waiting says so, lest a reader take it for current.
fn document(detail: Detail) -> Bytes {
    let Detail { document, waiting, .. } = detail;
    let (Some(waiting), Some(open)) = (waiting, document.strip_suffix(b"}")) else {
        return document;
    };
    [open, format!(",\"stale\":{}}}", stale(&waiting)).as_bytes()].concat().into()
}
