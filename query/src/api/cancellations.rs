//! `GET /cancellations`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::{Json, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use chrono::NaiveDate;
use domain::CustomerId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::describe::Waits;
use super::fresh::{Seen, until_fresh};
use super::times::{Day, told_day};
use super::{Api, built, cursor, describe, failed, page};
use crate::projections::cancellations::Reason;
use crate::store::answer::{CancellationFilter, CancellationTotals};

/// How many orders a customer gave up on a day, for a reason.
#[derive(Serialize, ToSchema)]
#[schema(as = Cancellations)]
pub(super) struct CancellationDocument {
    /// In UTC
    day: NaiveDate,
    #[schema(schema_with = describe::customer_id)]
    customer_id: CustomerId,
    /// At most 500 characters of it, with blanks for control characters
    #[schema(schema_with = describe::reason)]
    reason: Reason,
    /// Orders given up
    orders: i64,
}

impl From<CancellationTotals> for CancellationDocument {
    fn from(CancellationTotals { key: (day, customer_id, reason), orders }: CancellationTotals) -> Self {
        Self { day: told_day(day), customer_id, reason, orders }
    }
}

/// Which cancellations to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Of this customer
    #[param(schema_with = describe::customer_id)]
    customer_id: Option<CustomerId>,
    /// This day or later
    #[param(value_type = Option<NaiveDate>)]
    from: Option<Day>,
    /// This day or earlier
    #[param(value_type = Option<NaiveDate>)]
    to: Option<Day>,
    /// Rows per page; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
    /// Wait until this order is applied at this version, as `ORDER_ID:VERSION` from a command's answer
    #[param(schema_with = describe::seen)]
    after: Option<Seen>,
    /// Where the page begins, from the `Link` of the page before
    cursor: Option<String>,
}

/// Lists why orders were given up, by day, customer and reason.
#[utoipa::path(
    get,
    path = "/cancellations",
    operation_id = "list_cancellations",
    tag = "totals",
    params(ListQuery, Waits),
    responses((status = 200, description = "A page", body = Vec<CancellationDocument>, headers(("Link"))))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
    RawQuery(raw): RawQuery,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<(i64, CustomerId, Reason)> = cursor::decode(query.cursor.as_deref())?;
    let filter = CancellationFilter {
        customer_id: query.customer_id,
        from_day: query.from.map_or(i64::MIN, Day::since_epoch),
        to_day: query.to.map_or(i64::MAX, Day::since_epoch),
    };
    until_fresh(&api, peer, query.after, &headers).await?;
    built(&api, "cancellations")?;
    let _permit = api.reads.try_enter_for(peer)?;
    let mut rows = api.store.cancellations(&filter, after.as_ref(), limit + 1).await.map_err(failed)?;
    let more = page::cut(&mut rows, limit);
    let last = rows.last().map(|last| last.key.clone());
    let mut response = Json(rows.into_iter().map(CancellationDocument::from).collect::<Vec<_>>()).into_response();
    if let (true, Some(last)) = (more, last) {
        cursor::link_next(&mut response, "/cancellations", raw.as_deref(), &last);
    }
    Ok(response)
}
