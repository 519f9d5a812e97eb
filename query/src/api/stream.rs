//! `GET /orders/stream`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::Query;
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use domain::order::Status;
use domain::{CustomerId, OrderId};
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::mpsc;
use utoipa::IntoParams;
use uuid::Uuid;

use super::describe::{self, Resumes};
use super::{Api, failed, invalid_query};
use crate::live::feed::{BUFFER_EVENTS_MAX, Filter};
use crate::live::place::Cursor;

/// Tells proxies that collect an answer before they pass it on not to.
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Which changes to tell, and after which.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Changes that leave the order in this status
    #[param(schema_with = describe::status)]
    status: Option<String>,
    /// Changes of this customer's orders
    #[param(schema_with = describe::customer_id)]
    customer_id: Option<CustomerId>,
    /// Changes of this order
    order_id: Option<Uuid>,
    /// Changes of this type, as `OrderPaid`
    event_type: Option<String>,
    /// Where to go on, for clients that cannot send `Last-Event-ID`; the header counts when both are there
    #[param(schema_with = describe::stream_id)]
    last_event_id: Option<String>,
}

impl StreamQuery {
    fn cursor(&self, headers: &HeaderMap) -> Result<Option<Cursor>, Problem> {
        let sent = headers.get("last-event-id").map(HeaderValue::to_str).transpose();
        let sent = sent.map_err(|_not_text| invalid_query("last_event_id", "not an id of this stream"))?;
        let id = sent.or(self.last_event_id.as_deref()).filter(|id| !id.is_empty());
        id.map(|id| id.parse().map_err(|error| invalid_query("last_event_id", format!("{error}")))).transpose()
    }

    fn filter(self) -> Result<Filter, Problem> {
        let status = self.status.map(|name| {
            Status::parse(&name)
                .ok_or_else(|| invalid_query("status", "must be CREATED, PAID, SHIPPED, DELIVERED or CANCELLED"))
        });
        Ok(Filter {
            status: status.transpose()?,
            customer_id: self.customer_id,
            order_id: self.order_id.map(OrderId),
            event_type: self.event_type,
        })
    }
}

/// Tells changes as they are applied, as Server-Sent Events.
///
/// `event` is the event's type; `data` is an object of `partition`, `offset`, `n`, `event_id`, `order_id`, `version`,
/// `status` and `data`, the message as it was published. A client that comes back with the last `id` gets every change
/// after it once; where that cannot be, it is told `reset` first, and what follows begins at the present.
#[utoipa::path(
    get,
    path = "/orders/stream",
    operation_id = "stream_orders",
    tag = "orders",
    params(StreamQuery, Resumes),
    responses(
        (status = 200, description = "The changes from now on, or after the id", body = String,
            content_type = "text/event-stream"),
    )
)]
pub(super) async fn stream(
    State(api): State<Arc<Api>>,
    Query(query): Query<StreamQuery>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cursor = query.cursor(&headers)?;
    let filter = query.filter()?;
    let permit = api.streams.try_enter_for(peer)?;
    let feed = api.feed.clone();
    // From before the answer: what happens once the client has it is told.
    let cursor = match cursor {
        Some(cursor) => cursor,
        None => feed.now().await.map_err(failed)?,
    };
    let (out, told) = mpsc::channel(BUFFER_EVENTS_MAX);
    tokio::spawn(async move {
        feed.tell(filter, cursor, out).await;
        drop(permit);
    });
    let told = stream::unfold(told, |mut told| async {
        let text = told.recv().await?;
        Some((Ok::<_, Infallible>(text), told))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (UNBUFFERED, HeaderValue::from_static("no")),
    ];
    Ok((headers, Body::from_stream(told)).into_response())
}
