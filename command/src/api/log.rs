//! The event log for readers that build themselves anew when the topic cannot tell them everything.
//!
//! A page is a thousand times the work of an order, so the log has connections and limits of its own: what is asked here delays no
//! order, no price and no probe.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use chassis::http::admission::{Admission, Permit};
use chassis::http::describe::schemas;
use chassis::http::extract::Query;
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use chassis::postgres;
use chassis::tasks::detached;
use domain::{OrderId, Version};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use utoipa::openapi::schema::Object;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::Api;
use super::answer::{failed_question, invalid_query, page_limit};
use crate::relay::log::{self, LoggedEvent};

/// The most events of one page, and how many without asking.
const PAGE_EVENTS_MAX: u32 = 5_000;
const PAGE_EVENTS: u32 = 1_000;
/// About the most bytes of one page. An event is at most a quarter of a mebibyte.
const PAGE_BYTES_MAX: u32 = 2 * 1024 * 1024;
/// How long the database has for a page. The server's own deadline for a statement is shorter.
const PAGE_DEADLINE: Duration = Duration::from_secs(8);
/// How many pages are read at once, over a connection each.
pub const PAGES_READ_MAX: u32 = 2;
/// How many pages are in memory at once: those that are read, and those that slow peers have not taken yet.
pub const PAGES_HELD_MAX: usize = 16;

/// The way to the log.
#[derive(Debug)]
pub struct Log {
    /// Of [`PAGES_READ_MAX`] connections.
    pool: PgPool,
    read: Admission,
    held: Admission,
}

impl Log {
    /// The log of a database, read over `pool`. One peer holds at most `peer_share` of the pages in memory.
    pub fn new(pool: PgPool, peer_share: usize) -> Self {
        let read = Admission::new("pages of the log", PAGES_READ_MAX as usize);
        let held = Admission::new("answers with a page of the log", PAGES_HELD_MAX).with_share(peer_share);
        Self { pool, read, held }
    }

    /// Reads a page. It is read to its end even if nobody waits for it any more, and counts until then.
    async fn page(&self, after: (Uuid, i32), limit: u32) -> Result<log::Page, Problem> {
        let reading = self.read.try_enter()?;
        let pool = self.pool.clone();
        let page = detached(async move {
            let _reading = reading;
            postgres::ask(&pool, PAGE_DEADLINE, |connection| {
                Box::pin(log::page(connection, after, limit, PAGE_BYTES_MAX))
            })
            .await
        });
        let page = page.await.map_err(|panicked| Problem::internal(&panicked))?;
        page.map_err(|error| failed_question(&error))
    }
}

/// A body that counts as held until it is sent or given up.
struct Held {
    bytes: Body,
    _held: Permit,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.bytes).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.bytes.size_hint()
    }
}

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
/// committed behind the place you are at is after those offsets. A page ends after `limit` events or about 2 MiB, and the log ends with the
/// first page that has no `next`.
#[utoipa::path(
    get, path = "/internal/events", operation_id = "read_log", tag = "log", params(PageQuery),
    responses((status = 200, description = "A page", body = LogPage))
)]
async fn page(State(api): State<Arc<Api>>, peer: Peer, Query(query): Query<PageQuery>) -> Result<Response, Problem> {
    let limit = page_limit(query.limit, PAGE_EVENTS, PAGE_EVENTS_MAX)?;
    let after = match query.after.as_deref() {
        None => (Uuid::nil(), 0),
        Some(text) => {
            place(text).ok_or_else(|| invalid_query("after", "`after` is not the `next` of a page".to_owned()))?
        }
    };
    let held = api.log.held.try_enter_for(peer)?;
    let log::Page { events, is_full } = api.log.page(after, limit).await?;
    let next = events.last().filter(|_| is_full).map(|last| format!("{}:{}", last.order_id(), last.version()));
    let page = LogPage { events: events.into_iter().map(LogRecord::from).collect(), next };
    let bytes = serde_json::to_vec(&page).map_err(|error| Problem::internal(&error))?.into();
    let mut response = Response::new(Body::new(Held { bytes, _held: held }));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
