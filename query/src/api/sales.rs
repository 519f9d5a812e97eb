//! `GET /sales/daily`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::{Json, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use chrono::NaiveDate;
use domain::Currency;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::describe::Waits;
use super::fresh::{Seen, until_fresh};
use super::times::{Day, told_day};
use super::{Api, built, cursor, describe, failed, page};
use crate::store::answer::DayTotals;

/// A day's sales in one currency.
#[derive(Serialize, ToSchema)]
#[schema(as = DailySales)]
pub(super) struct DayDocument {
    /// In UTC
    day: NaiveDate,
    #[schema(schema_with = describe::currency)]
    currency: Currency,
    /// Orders placed that day
    orders: i64,
    /// Orders given up that day
    cancellations: i64,
    /// Payments minus refunds of that day; exact, with all digits of the currency
    #[schema(schema_with = describe::sum)]
    revenue: Box<RawValue>,
}

impl From<&DayTotals> for DayDocument {
    fn from(row: &DayTotals) -> Self {
        let day = told_day(row.day);
        let revenue = row.revenue.to_json_number(row.currency);
        Self { day, currency: row.currency, orders: row.orders, cancellations: row.cancellations, revenue }
    }
}

/// Which days to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DailyQuery {
    /// This day or later
    #[param(value_type = Option<NaiveDate>)]
    from: Option<Day>,
    /// This day or earlier
    #[param(value_type = Option<NaiveDate>)]
    to: Option<Day>,
    /// ISO 4217
    #[param(schema_with = describe::currency)]
    currency: Option<Currency>,
    /// Rows per page; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
    /// Wait until this order is applied at this version, as `ORDER_ID:VERSION` from a command's answer
    #[param(schema_with = describe::seen)]
    after: Option<Seen>,
    /// Where the page begins, from the `Link` of the page before
    cursor: Option<String>,
}

/// Lists sales by day and currency, oldest first.
#[utoipa::path(
    get,
    path = "/sales/daily",
    operation_id = "list_daily_sales",
    tag = "totals",
    params(DailyQuery, Waits),
    responses((status = 200, description = "A page", body = Vec<DayDocument>, headers(("Link"))))
)]
pub(super) async fn daily(
    State(api): State<Arc<Api>>,
    Query(query): Query<DailyQuery>,
    RawQuery(raw): RawQuery,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<(i64, Currency)> = cursor::decode(query.cursor.as_deref())?;
    let from = query.from.map_or(i64::MIN, Day::since_epoch);
    let to = query.to.map_or(i64::MAX, Day::since_epoch);
    until_fresh(&api, peer, query.after, &headers).await?;
    built(&api, "daily_sales")?;
    let _permit = api.reads.try_enter_for(peer)?;
    let mut rows = api.store.daily_sales(from, to, query.currency, after, limit + 1).await.map_err(failed)?;
    let more = page::cut(&mut rows, limit);
    let days: Vec<_> = rows.iter().map(DayDocument::from).collect();
    let mut response = Json(days).into_response();
    if let (true, Some(last)) = (more, rows.last()) {
        cursor::link_next(&mut response, "/sales/daily", raw.as_deref(), &(last.day, last.currency));
    }
    Ok(response)
}
