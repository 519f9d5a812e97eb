//! `GET /customers` and `GET /customers/{id}`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::{Json, Path, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use chrono::{DateTime, Utc};
use domain::{Currency, CustomerId, schema};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caching::{Holds, Tag};
use super::describe::{Conditional, Waits};
use super::fresh::{Seen, until_fresh};
use super::{Api, built, cursor, describe, failed, page, times};
use crate::store;
use crate::store::answer::CustomerTotals;

/// A customer.
#[derive(Serialize, ToSchema)]
#[schema(as = Customer)]
pub(super) struct CustomerDocument {
    #[schema(schema_with = describe::customer_id)]
    customer_id: CustomerId,
    /// Orders placed
    orders: i64,
    /// Orders given up
    cancellations: i64,
    last_order_id: Uuid,
    last_order_at: DateTime<Utc>,
    /// One per currency
    spend: Vec<SpendDocument>,
}

/// What a customer spent in one currency.
#[derive(Serialize, ToSchema)]
#[schema(as = Spend)]
pub(super) struct SpendDocument {
    #[schema(schema_with = describe::currency)]
    currency: Currency,
    /// Paid minus refunded; exact, with all digits of the currency
    #[schema(schema_with = describe::sum)]
    amount: Box<RawValue>,
    /// Orders placed in it
    orders: i64,
    /// Orders given up
    cancellations: i64,
}

/// One document per customer, from rows that are sorted by customer.
fn documents(rows: Vec<CustomerTotals>) -> Vec<CustomerDocument> {
    let mut documents: Vec<CustomerDocument> = Vec::new();
    for row in rows {
        let (last_at_micros, last_id) = row.last_order;
        let last_order_at = times::told(last_at_micros);
        let spend = SpendDocument {
            currency: row.currency,
            amount: row.spend.to_json_number(row.currency),
            orders: row.orders,
            cancellations: row.cancellations,
        };
        match documents.last_mut() {
            Some(document) if document.customer_id == row.customer_id => {
                document.orders += row.orders;
                document.cancellations += row.cancellations;
                if (last_order_at, last_id.0) > (document.last_order_at, document.last_order_id) {
                    (document.last_order_at, document.last_order_id) = (last_order_at, last_id.0);
                }
                document.spend.push(spend);
            }
            _ => documents.push(CustomerDocument {
                customer_id: row.customer_id,
                orders: row.orders,
                cancellations: row.cancellations,
                last_order_id: last_id.0,
                last_order_at,
                spend: vec![spend],
            }),
        }
    }
    documents
}

/// Which customers to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Customers per page; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
    /// Wait until this order is applied at this version, as `ORDER_ID:VERSION` from a command's answer
    #[param(schema_with = describe::seen)]
    after: Option<Seen>,
    /// Where the page begins, from the `Link` of the page before
    cursor: Option<String>,
}

/// Lists customers by id.
#[utoipa::path(
    get,
    path = "/customers",
    operation_id = "list_customers",
    tag = "totals",
    params(ListQuery, Waits),
    responses((status = 200, description = "A page", body = Vec<CustomerDocument>, headers(("Link"))))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
    RawQuery(raw): RawQuery,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<CustomerId> = cursor::decode(query.cursor.as_deref())?;
    until_fresh(&api, peer, query.after, &headers).await?;
    built(&api, "customers")?;
    let _permit = api.reads.try_enter_for(peer)?;
    let rows = api.store.customers(None, after.as_ref(), limit + 1).await.map_err(failed)?;
    let mut customers = documents(rows);
    let more = page::cut(&mut customers, limit);
    let last = customers.last().map(|last| last.customer_id.clone());
    let mut response = Json(customers).into_response();
    if let (true, Some(last)) = (more, last) {
        cursor::link_next(&mut response, "/customers", raw.as_deref(), &last);
    }
    Ok(response)
}

/// Names a customer.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path, which is read as an id alone")]
pub(super) struct CustomerPath {
    /// The customer
    #[param(schema_with = describe::customer_id)]
    id: CustomerId,
}

/// How fresh an answer has to be.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DetailQuery {
    /// Wait until this order is applied at this version, as `ORDER_ID:VERSION` from a command's answer
    #[param(schema_with = describe::seen)]
    after: Option<Seen>,
}

/// Shows one customer.
#[utoipa::path(
    get,
    path = "/customers/{id}",
    operation_id = "get_customer",
    tag = "totals",
    params(CustomerPath, DetailQuery, Waits, Conditional),
    responses(
        (status = 200, description = "The customer; `ETag` is a digest of it", body = CustomerDocument, headers(("ETag"))),
        (status = 304, description = "As it was: `If-None-Match` has its digest", headers(("ETag"))),
    )
)]
pub(super) async fn detail(
    State(api): State<Arc<Api>>,
    Path(id): Path<CustomerId>,
    Query(query): Query<DetailQuery>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    until_fresh(&api, peer, query.after, &headers).await?;
    built(&api, "customers")?;
    let _permit = api.reads.try_enter_for(peer)?;
    let rows = api.store.customers(Some(&id), None, 1).await.map_err(failed)?;
    let Some(customer) = documents(rows).pop() else {
        let detail = format!("no order of the customer {id} is applied");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-customer", "Unknown customer", detail));
    };
    let body = serde_json::to_string(&customer).map_err(|error| failed(store::Error::Json(error)))?;
    // A customer has no version, and is small: what it shows names it.
    let tag = Tag::new(Uuid::from_bytes(schema::digest(body.as_bytes())).simple(), Holds::ForNow);
    if tag.is_known(&headers) {
        return Ok(tag.not_modified());
    }
    Ok(tag.on(page::json(body.into())))
}
