//! The event log for readers that build themselves anew when the topic cannot tell them everything.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::http::describe::schemas;
use chassis::http::extract::Query;
use chassis::http::problem::Problem;
use chassis::tasks::detached;
use domain::{OrderId, Version};
use serde::{Deserialize, Serialize};
use utoipa::openapi::schema::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::answer::{invalid_query, page_limit, unavailable};
use super::{AdmittedRead, Api};
use crate::relay::log::{self, LoggedEvent};

/// The most events of one page, and how many without asking.
const PAGE_EVENTS_MAX: u32 = 5_000;
const PAGE_EVENTS: u32 = 1_000;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(page))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// `next` of the page before; nothing for the first page.
    after: Option<String>,
    /// How many; 1000 unless given.
    #[param(schema_with = page_events)]
    limit: Option<u32>,
}

fn page_events() -> Object {
    schemas::whole(1, PAGE_EVENTS_MAX).build()
}

/// Events in the order of their orders' ids, each order's in the order of its versions.
#[derive(Debug, Serialize, ToSchema)]
struct LogPage {
    events: Vec<LogRecord>,
    /// The place after the last event; missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

/// An event as its record on the topic is.
#[derive(Debug, Serialize, ToSchema)]
struct LogRecord {
    #[schema(value_type = Uuid)]
    order_id: OrderId,
    #[schema(value_type = u32)]
    version: Version,
    /// The exact text of the message.
    message: String,
    /// The record's headers: name and value of each.
    #[schema(value_type = Vec<[String; 2]>)]
    headers: Vec<(&'static str, String)>,
}

impl From<LoggedEvent> for LogRecord {
    fn from(event: LoggedEvent) -> Self {
        let (order_id, version) = (event.order_id(), event.version());
        let key = order_id.to_string();
        let headers = event.record(&key).headers.into_iter().map(|(name, value)| (name, value.into_owned())).collect();
        Self { order_id, version, message: event.payload, headers }
    }
}

/// `order id:version`.
fn place(text: &str) -> Option<(Uuid, i32)> {
    let (order_id, version) = text.split_once(':')?;
    Some((order_id.parse().ok()?, version.parse().ok().filter(|version| *version >= 0)?))
}

/// Read the event log page by page.
///
/// Note the topic's end offsets first, read the log to its end, and go on with the topic from those offsets: what is
/// committed behind the place you are at is after those offsets.
#[utoipa::path(
    get, path = "/internal/events", operation_id = "read_log", tag = "log", params(PageQuery),
    responses((status = 200, description = "A page", body = LogPage))
)]
async fn page(
    State(api): State<Arc<Api>>,
    _admitted: AdmittedRead,
    Query(query): Query<PageQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(query.limit, PAGE_EVENTS, PAGE_EVENTS_MAX)?;
    let after = match query.after.as_deref() {
        None => (Uuid::nil(), 0),
        Some(text) => {
            place(text).ok_or_else(|| invalid_query("after", "`after` is not the `next` of a page".to_owned()))?
        }
    };
    let pool = api.pool.clone();
    let events = detached(async move {
        let mut connection = pool.acquire().await?;
        log::page(&mut connection, after, limit).await
    })
    .await
    .map_err(|error| unavailable(&error))?
    .map_err(|error| unavailable(&error))?;
    let full = u32::try_from(events.len()) == Ok(limit);
    let next = events.last().filter(|_| full).map(|last| format!("{}:{}", last.order_id(), last.version()));
    Ok(axum::Json(LogPage { events: events.into_iter().map(LogRecord::from).collect(), next }).into_response())
}
