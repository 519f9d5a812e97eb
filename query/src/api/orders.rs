//! `GET /orders` and `GET /orders/{id}`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::{Path, Query};
use chassis::http::problem::{Outcome, Problem};
use chrono::{DateTime, Utc};
use domain::order::Status;
use domain::{Currency, CustomerId, Money, OrderId, Sku, Version};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Api, cursor, failed, invalid_query, page, stale, unknown_order};
use crate::store::answer::{Detail, ListFilter};

/// How long a reader waits for a version unless it says otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// The longest that a reader may wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Which orders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// CREATED, PAID, SHIPPED, DELIVERED or CANCELLED
    status: Option<String>,
    /// Orders of this customer
    #[param(value_type = Option<String>)]
    customer_id: Option<CustomerId>,
    /// Orders with this product among their items
    #[param(value_type = Option<String>)]
    sku: Option<Sku>,
    /// Placed at this time or later
    created_from: Option<DateTime<Utc>>,
    /// Placed at this time or earlier
    created_to: Option<DateTime<Utc>>,
    /// Costing at least this, in `currency`
    #[param(value_type = Option<f64>)]
    min_total: Option<String>,
    /// Costing at most this, in `currency`
    #[param(value_type = Option<f64>)]
    max_total: Option<String>,
    /// ISO 4217; `min_total` and `max_total` without it are in the default currency
    #[param(value_type = Option<String>)]
    currency: Option<Currency>,
    /// Orders per page, 1 to 200; 50 unless given
    limit: Option<u32>,
    /// Where the page begins, from the `Link` of the page before
    cursor: Option<String>,
}

impl ListQuery {
    fn filter(&self, default_currency: Currency) -> Result<ListFilter, Problem> {
        let status = self.status.as_deref().map(|name| {
            Status::parse(name)
                .ok_or_else(|| invalid_query("status", "must be CREATED, PAID, SHIPPED, DELIVERED or CANCELLED"))
        });
        let bounded = self.min_total.is_some() || self.max_total.is_some();
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
            created_from_micros: self.created_from.map(|at| at.timestamp_micros()),
            created_to_micros: self.created_to.map(|at| at.timestamp_micros()),
            // An amount is an amount of something.
            currency: if bounded { Some(amounts_in) } else { self.currency },
            min_total_minor: minor("min_total", &self.min_total)?,
            max_total_minor: minor("max_total", &self.max_total)?,
            after: cursor::decode(self.cursor.as_deref())?,
        })
    }
}

/// An order.
#[derive(ToSchema)]
#[schema(as = Order)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct OrderDocument {
    order_id: Uuid,
    customer_id: String,
    /// CREATED, PAID, SHIPPED, DELIVERED or CANCELLED
    status: String,
    /// How many events of the order are applied
    version: u32,
    items: Vec<ItemDocument>,
    /// Exact, with all digits of the currency
    total: f64,
    currency: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// `amount`, `at`, and `payment_reference` where known
    #[schema(value_type = Option<Object>)]
    paid: Option<()>,
    /// `at`, and `carrier` and `tracking_number` where known
    #[schema(value_type = Option<Object>)]
    shipped: Option<()>,
    delivered_at: Option<DateTime<Utc>>,
    /// `at` and `reason`
    #[schema(value_type = Option<Object>)]
    cancelled: Option<()>,
    /// `amount` and `at`
    #[schema(value_type = Option<Object>)]
    refunded: Option<()>,
    /// There are later events that cannot be applied: `cause` (hole, newer, fork) and `waiting_since_version`
    #[schema(value_type = Option<Object>)]
    stale: Option<()>,
}

/// A line of an order.
#[derive(ToSchema)]
#[schema(as = Item)]
#[expect(dead_code, reason = "describes the stored documents, which are served as they are")]
pub(super) struct ItemDocument {
    sku: String,
    quantity: u32,
    /// Left out where the order came without prices
    unit_price: Option<f64>,
}

/// Lists orders, newest first.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    params(ListQuery),
    responses(
        (status = 200, description = "A page; `Link` with rel=\"next\" when there is more", body = Vec<OrderDocument>),
        (status = 400, description = "A parameter is unknown or malformed", body = Problem),
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let filter = query.filter(api.default_currency)?;
    let _permit = api.reads.try_enter()?;
    let mut listed = api.store.list(&filter, limit + 1).await.map_err(failed)?;
    let more = page::cut(&mut listed, limit);
    let mut response = page::array(listed.iter().map(|listed| listed.document.as_str()));
    if let (true, Some(last)) = (more, listed.last()) {
        cursor::link_next(&mut response, "/orders", raw.as_deref(), &last.key);
    }
    Ok(response)
}

/// How fresh an answer has to be.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FreshQuery {
    /// Wait until this version of the order is applied; for how long, in seconds, says `Prefer: wait=2`
    min_version: Option<u32>,
}

/// Shows one order.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    params(("id" = Uuid, Path, description = "The order"), FreshQuery),
    responses(
        (status = 200, description = "The order; `ETag` is its version", body = OrderDocument),
        (status = 304, description = "As it was: `If-None-Match` has its version"),
        (status = 400, description = "The id or a parameter is malformed", body = Problem),
        (status = 404, description = "Not known, or not yet", body = Problem),
        (status = 503, description = "`min_version` was not reached in time", body = Problem),
    )
)]
pub(super) async fn detail(
    State(api): State<Arc<Api>>,
    Path(id): Path<Uuid>,
    Query(query): Query<FreshQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order_id = OrderId(id);
    query.until_fresh(&api, order_id, &headers).await?;
    let _permit = api.reads.try_enter()?;
    let Some(detail) = api.store.order(order_id).await.map_err(failed)? else {
        return Err(unknown_order(&api, order_id).await);
    };
    let etag = etag(&detail);
    if headers.get(IF_NONE_MATCH).is_some_and(|known| matches(known, &etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response());
    }
    let mut response = page::json(document(detail));
    response.headers_mut().insert(ETAG, etag);
    Ok(response)
}

impl FreshQuery {
    /// Waits for the version that is asked for, if any is.
    pub(super) async fn until_fresh(&self, api: &Api, order_id: OrderId, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(min_version) = self.min_version.map(Version) else {
            return Ok(());
        };
        let reached = api.store.order_version(order_id).await.map_err(failed)?.unwrap_or_default();
        if reached >= min_version {
            return Ok(());
        }
        let _permit = api.waits.try_enter()?;
        let wait = wait(headers);
        if api.freshness.wait_for(&api.store, order_id, min_version, wait).await.map_err(failed)? {
            return Ok(());
        }
        let reached = api.store.order_version(order_id).await.map_err(failed)?.unwrap_or_default();
        let mut detail = format!("version {min_version} is not applied yet, version {reached} is");
        if let Some(problem) = api.progress.topic_problem() {
            detail = format!("{detail}; {problem}");
        }
        let problem =
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "read-model-behind", "The read model is behind", detail);
        Err(problem.outcome(Outcome::NotExecuted).with("version", reached.0).retry_after(1))
    }
}

/// RFC 7240: `Prefer: wait=2`, in seconds. A preference that is not understood is ignored, as it asks.
fn wait(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds = preferences.find_map(|preference| preference.strip_prefix("wait=")?.trim().parse().ok());
    seconds.map_or(WAIT_DEFAULT, Duration::from_secs).min(WAIT_MAX)
}

/// Weak: the same version may be written with other bytes by another release.
fn etag(detail: &Detail) -> HeaderValue {
    let stale = detail.waiting.as_ref().map_or("", |_waiting| "-stale");
    let etag = format!("W/\"{}{stale}\"", detail.version);
    // Digits and letters are a header value.
    HeaderValue::try_from(etag).unwrap_or_else(|_impossible| HeaderValue::from_static("W/\"0\""))
}

/// RFC 9110: weak comparison with any of a list, or with anything.
fn matches(known: &HeaderValue, etag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let (Ok(known), Ok(etag)) = (known.to_str(), etag.to_str()) else {
        return false;
    };
    known.split(',').any(|known| known.trim() == "*" || opaque(known) == opaque(etag))
}

/// The stored document; an order that has events waiting says so, lest a reader take it for current.
fn document(detail: Detail) -> String {
    let Detail { document, waiting, .. } = detail;
    let (Some(waiting), Some(open)) = (waiting, document.strip_suffix('}')) else {
        return document;
    };
    format!("{open},\"stale\":{}}}", stale(&waiting))
}
