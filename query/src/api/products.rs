//! `GET /products`.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::{Json, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use domain::{Currency, Sku};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::describe::Waits;
use super::fresh::{Seen, until_fresh};
use super::{Api, built, cursor, describe, failed, page};
use crate::store::answer::ProductTotals;

/// The demand for a product in one currency.
#[derive(Serialize, ToSchema)]
#[schema(as = ProductDemand)]
pub(super) struct ProductDocument {
    #[schema(schema_with = describe::sku)]
    sku: Sku,
    #[schema(schema_with = describe::currency)]
    currency: Currency,
    /// Pieces in orders that are not cancelled
    units: i64,
    /// Price times pieces where the order tells a price; exact, with all digits of the currency
    #[schema(schema_with = describe::amount)]
    revenue: Box<RawValue>,
}

impl From<&ProductTotals> for ProductDocument {
    fn from(row: &ProductTotals) -> Self {
        let revenue = row.revenue.to_json_number(row.currency);
        Self { sku: row.sku.clone(), currency: row.currency, units: row.units, revenue }
    }
}

/// Which products to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// This product alone
    #[param(schema_with = describe::sku)]
    sku: Option<Sku>,
    /// Rows per page; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
    /// Wait until this order is applied at this version, as `ORDER_ID:VERSION` from a command's answer
    #[param(schema_with = describe::seen)]
    after: Option<Seen>,
    /// Where the page begins, from the `Link` of the page before
    cursor: Option<String>,
}

/// Lists the demand by SKU and currency.
#[utoipa::path(
    get,
    path = "/products",
    operation_id = "list_product_demand",
    tag = "totals",
    params(ListQuery, Waits),
    responses((status = 200, description = "A page", body = Vec<ProductDocument>, headers(("Link"))))
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Query(query): Query<ListQuery>,
    RawQuery(raw): RawQuery,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let after: Option<(Sku, Currency)> = cursor::decode(query.cursor.as_deref())?;
    let after = after.as_ref().map(|(sku, currency)| (sku, *currency));
    until_fresh(&api, peer, query.after, &headers).await?;
    built(&api, "product_demand")?;
    let _permit = api.reads.try_enter_for(peer)?;
    let mut rows = api.store.products(query.sku.as_ref(), after, limit + 1).await.map_err(failed)?;
    let more = page::cut(&mut rows, limit);
    let products: Vec<_> = rows.iter().map(ProductDocument::from).collect();
    let mut response = Json(products).into_response();
    if let (true, Some(last)) = (more, rows.last()) {
        cursor::link_next(&mut response, "/products", raw.as_deref(), &(last.sku.clone(), last.currency));
    }
    Ok(response)
}
