//! The questions that the read model answers. Everything is a `GET`; nothing writes.
#![expect(unused_qualifications, reason = "the macros of utoipa qualify what they need not")]

mod cursor;

pub(crate) mod describe;

mod fresh;

mod caching;

mod orders;

mod history;

mod diff;

mod stream;

pub(crate) mod times;

mod customers;

mod sales;

mod products;

mod cancellations;

mod operations;

pub(crate) mod page;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use chassis::http::Limits;
use chassis::http::admission::Admission;
use chassis::http::problem::{Outcome, Problem};
use chassis::telemetry::ErrorChain;
use chrono::SecondsFormat;
use domain::{Currency, OrderId};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::freshness::Freshness;
use crate::live::StreamLimits;
use crate::live::feed::Feed;
use crate::progress::Progress;
use crate::store::answer::Waiting;
use crate::store::{self, Store};
use crate::time_travel::Moment;

/// Requests that read at once; the connections that serve them are far fewer, and quick.
const READS_MAX: usize = 512;
/// Requests that wait for a version at once.
const WAITS_MAX: usize = 1_024;

/// When to ask again while the database does not answer, in seconds.
const RETRY_AFTER_S: u64 = 1;

/// When to ask again while a projection is built, in seconds.
const BUILDING_RETRY_AFTER_S: u64 = 10;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Api {
    store: Store,
    freshness: Freshness,
    progress: Progress,
    reads: Admission,
    waits: Admission,
    streams: Admission,
    streams_max: usize,
    feed: Feed,
    default_currency: Currency,
}

impl Api {
    /// An API over this store.
    pub fn new(store: Store, freshness: Freshness, progress: Progress, default_currency: Currency) -> Self {
        let limits = StreamLimits::default();
        let feed = Feed::new(store.clone(), freshness.clone(), progress.clone(), limits, CancellationToken::new());
        Self {
            store,
            freshness,
            progress,
            reads: Admission::new("reads", READS_MAX),
            waits: Admission::new("waits", WAITS_MAX),
            streams: Admission::new("streams", limits.streams_max),
            streams_max: limits.streams_max,
            feed,
            default_currency,
        }
    }

    /// With these limits on streams, and with their end at `shutdown`.
    #[must_use]
    pub fn streaming(self, limits: StreamLimits, shutdown: CancellationToken) -> Self {
        let (store, freshness, progress) = (self.store.clone(), self.freshness.clone(), self.progress.clone());
        let feed = Feed::new(store, freshness, progress, limits, shutdown);
        let streams_max = limits.streams_max;
        Self { feed, streams: Admission::new("streams", streams_max), streams_max, ..self }
    }

    /// With a share for each peer of what all of them read, wait for and follow.
    #[must_use]
    pub fn sharing(self, limits: &Limits) -> Self {
        let shared = |door: Admission, permits_max: usize| door.with_share(limits.peer_share(permits_max));
        Self {
            reads: shared(self.reads, READS_MAX),
            waits: shared(self.waits, WAITS_MAX),
            streams: shared(self.streams, self.streams_max),
            ..self
        }
    }

    /// With room for this many requests that read at once.
    #[must_use]
    pub fn admitting(self, reads_max: usize) -> Self {
        Self { reads: Admission::new("reads", reads_max), ..self }
    }

    /// The routes and their description.
    pub fn router(self) -> (Router, utoipa::openapi::OpenApi) {
        let (router, description) = routes().with_state(Arc::new(self)).split_for_parts();
        (router.layer(map_response(caching::said_of_all)), describe::completed(description))
    }
}

/// The description of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    describe::completed(routes().into_openapi())
}

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(orders::list))
        .routes(routes!(stream::stream))
        .routes(routes!(orders::detail))
        .routes(routes!(history::history))
        .routes(routes!(diff::diff))
        .routes(routes!(customers::list))
        .routes(routes!(customers::detail))
        .routes(routes!(sales::daily))
        .routes(routes!(products::list))
        .routes(routes!(cancellations::list))
        .routes(routes!(operations::projection))
        .routes(routes!(operations::dead_letters))
        .routes(routes!(operations::parked))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "order-query",
        description = "Orders, their histories, and totals, read from a projection of the topic `orders.events`. \
            Answers may be a moment behind. `order_id` and `version` of a command's answer bring them up to date: an \
            order's own pages wait for `min_version=VERSION`, lists and totals for `after=ORDER_ID:VERSION`, at most as \
            long as `Prefer: wait=SECONDS` says.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "orders", description = "Orders and their histories"),
        (name = "totals", description = "Sums over orders"),
        (name = "operations", description = "How the projection is doing")
    )
)]
struct Description;

/// The database failed: the log has the details. What may pass by itself is told from what will not.
pub(crate) fn failed(error: store::Error) -> Problem {
    if error.is_value_refused() {
        tracing::warn!(error = %ErrorChain(&error), "the database refuses a value of a request");
        let detail = "the database cannot take a value of this request";
        return Problem::new(StatusCode::BAD_REQUEST, "invalid-query", "Invalid query", detail)
            .outcome(Outcome::NotExecuted);
    }
    if matches!(error, store::Error::LongBusy) {
        let detail = "as many long lists as may be are already being read";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail);
        return problem.outcome(Outcome::NotExecuted).retry_after(RETRY_AFTER_S);
    }
    if !error.is_transient() {
        return Problem::internal(&error);
    }
    tracing::warn!(error = %ErrorChain(&error), "the read model does not answer");
    let detail = "the read model does not answer now; ask again";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", "Not ready", detail);
    problem.outcome(Outcome::NotExecuted).retry_after(RETRY_AFTER_S)
}

/// 404; an order of which later events wait for the first one says so.
async fn unknown_order(api: &Api, order_id: OrderId) -> Problem {
    let detail = format!("no event of the order {order_id} is applied");
    let problem = Problem::new(StatusCode::NOT_FOUND, "unknown-order", "Unknown order", detail);
    match api.store.waiting(order_id).await {
        Ok(None) => problem,
        Ok(Some(waiting)) => problem.with("stale", stale(&waiting)),
        Err(error) => failed(error),
    }
}

/// 404 for a moment at which the order did not exist.
fn unknown_version(order_id: OrderId, moment: Moment) -> Problem {
    let detail = match moment {
        Moment::Version(version) => format!("version {version} of the order {order_id} is not applied"),
        Moment::Time(time) => {
            let time = time.to_rfc3339_opts(SecondsFormat::AutoSi, true);
            format!("nothing had happened to the order {order_id} by {time}")
        }
    };
    Problem::new(StatusCode::NOT_FOUND, "unknown-version", "Unknown version", detail)
}

/// What an order says of events that wait.
fn stale(waiting: &Waiting) -> Value {
    json!({ "cause": waiting.cause, "waiting_since_version": waiting.version.0 })
}

/// Only what is filled is answered: a projection that this program brought is built first, beside what is served.
fn built(api: &Api, projection: &str) -> Result<(), Problem> {
    if api.progress.has(projection) {
        return Ok(());
    }
    let detail = format!("{projection} is new in this program and is being built; the other answers are complete");
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "projection-building", "The projection is being built", detail);
    Err(problem.outcome(Outcome::NotExecuted).retry_after(BUILDING_RETRY_AFTER_S))
}

fn invalid_query(parameter: &str, detail: impl Into<String>) -> Problem {
    let detail = detail.into();
    let whole = format!("{parameter}: {detail}");
    Problem::new(StatusCode::BAD_REQUEST, "invalid-query", "Invalid query", whole).error(parameter, "invalid", detail)
}
