//! `GET /orders/{id}/diff`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chassis::http::extract::{Json, Path, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use domain::{OrderId, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caching::{Holds, Tag};
use super::describe::Conditional;
use super::{Api, failed, unknown_order, unknown_version};
use crate::store;
use crate::time_travel::{self, Change, Moment};

/// Which two versions to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DiffQuery {
    /// The one version; 0 is before the order existed
    from: u32,
    /// The other version; the current one unless given
    to: Option<u32>,
}

/// What changed between two versions of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Diff)]
pub(super) struct DiffDocument {
    order_id: Uuid,
    from: u32,
    to: u32,
    #[schema(value_type = Vec<ChangeDocument>)]
    changes: Vec<Change>,
}

/// One difference.
#[derive(ToSchema)]
#[schema(as = Change)]
#[expect(dead_code, reason = "describes the changes, which are exact JSON already")]
pub(super) struct ChangeDocument {
    /// The field of the order
    field: String,
    /// Of `items`: which one
    #[schema(nullable = false)]
    sku: Option<String>,
    /// What it was; null where it was not
    from: Value,
    /// What it became; null where it is not any more
    to: Value,
}

/// Shows what changed between two versions.
#[utoipa::path(
    get,
    path = "/orders/{id}/diff",
    operation_id = "diff_order",
    tag = "orders",
    params(("id" = Uuid, Path, description = "The order"), DiffQuery, Conditional),
    responses(
        (status = 200, description = "What changed, by field and then by SKU; `ETag` is both versions", body = DiffDocument, headers(("ETag"))),
        (status = 304, description = "As it was: `If-None-Match` has both versions", headers(("ETag"))),
    )
)]
pub(super) async fn diff(
    State(api): State<Arc<Api>>,
    Path(id): Path<Uuid>,
    Query(query): Query<DiffQuery>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order_id = OrderId(id);
    let _permit = api.reads.try_enter_for(peer)?;
    let Some(reached) = api.store.order_version(order_id).await.map_err(failed)? else {
        return Err(unknown_order(&api, order_id).await);
    };
    let (from, to) = (Version(query.from), query.to.map_or(reached, Version));
    if let Some(version) = [from, to].into_iter().find(|version| *version > reached) {
        return Err(unknown_version(order_id, Moment::Version(version)));
    }
    let holds = if query.to.is_some() { Holds::ForEver } else { Holds::ForNow };
    let tag = Tag::new(format_args!("{from}-{to}"), holds);
    if tag.is_known(&headers) {
        return Ok(tag.not_modified());
    }
    let history = api.store.history(order_id).await.map_err(failed)?;
    let at = |version: Version| {
        if version == Version::default() {
            return Ok(None);
        }
        let row = time_travel::at(&history, Moment::Version(version), api.default_currency).map_err(failed)?;
        row.map(Some).ok_or_else(|| unknown_version(order_id, Moment::Version(version)))
    };
    let (before, after) = (at(from)?, at(to)?);
    let changes = time_travel::difference(before.as_ref(), after.as_ref());
    let changes = changes.map_err(|error| failed(store::Error::Json(error)))?;
    Ok(tag.on(Json(DiffDocument { order_id: id, from: from.0, to: to.0, changes })))
}
