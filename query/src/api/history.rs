//! `GET /orders/{id}/history`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::IF_NONE_MATCH;
use axum::response::Response;
use chassis::http::extract::{Json, Path, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use chrono::{DateTime, Utc};
use domain::OrderId;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caching::{Holds, Tag};
use super::describe::{Conditional, Waits};
use super::fresh::{Seen, until_fresh};
use super::{Api, failed, times, unknown_order};
use crate::store;
use crate::store::answer::Event;

/// An event of an order.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventDocument {
    event_type: String,
    version: u32,
    event_id: Uuid,
    occurred_at: DateTime<Utc>,
    /// The version of the schema it was written in
    schema_version: u16,
    /// The message as it was published
    #[schema(value_type = Object)]
    data: Box<RawValue>,
    /// Who asked, where known
    actor: Option<String>,
    /// The conversation it belongs to, where known
    correlation_id: Option<String>,
    /// The request or event that caused it, where known
    causation_id: Option<String>,
}

/// What a message says of itself; the published contract's says nothing and is version 1.
#[derive(Deserialize)]
struct Written {
    schema_version: Option<u16>,
}

impl TryFrom<Event> for EventDocument {
    type Error = serde_json::Error;

    fn try_from(event: Event) -> Result<Self, serde_json::Error> {
        let written: Written = serde_json::from_str(&event.message)?;
        Ok(Self {
            event_type: event.event_type,
            version: event.version.0,
            event_id: event.event_id,
            occurred_at: times::told(event.occurred_at_micros),
            schema_version: written.schema_version.unwrap_or(1),
            data: RawValue::from_string(event.message)?,
            actor: event.actor,
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
        })
    }
}

/// How fresh an answer has to be.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FreshQuery {
    /// Wait until this version of the order is applied
    min_version: Option<u32>,
}

/// Shows everything that happened to an order, in order.
#[utoipa::path(
    get,
    path = "/orders/{id}/history",
    operation_id = "get_order_history",
    tag = "orders",
    params(("id" = Uuid, Path, description = "The order"), FreshQuery, Waits, Conditional),
    responses(
        (status = 200, description = "Its events; `ETag` is the order's version", body = Vec<EventDocument>, headers(("ETag"))),
        (status = 304, description = "As it was: `If-None-Match` has the order's version", headers(("ETag"))),
    )
)]
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    Path(id): Path<Uuid>,
    Query(query): Query<FreshQuery>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order_id = OrderId(id);
    until_fresh(&api, peer, Seen::min_version(order_id, query.min_version), &headers).await?;
    let _permit = api.reads.try_enter_for(peer)?;
    // What the client has is not read again.
    if headers.contains_key(IF_NONE_MATCH)
        && let Some(reached) = api.store.order_version(order_id).await.map_err(failed)?
    {
        let tag = Tag::new(reached, Holds::ForNow);
        if tag.is_known(&headers) {
            return Ok(tag.not_modified());
        }
    }
    let events = api.store.history(order_id).await.map_err(failed)?;
    let Some(last) = events.last() else {
        return Err(unknown_order(&api, order_id).await);
    };
    let tag = Tag::new(last.version, Holds::ForNow);
    let documents: Result<Vec<_>, _> = events.into_iter().map(EventDocument::try_from).collect();
    Ok(tag.on(Json(documents.map_err(|error| failed(store::Error::Json(error)))?)))
}
