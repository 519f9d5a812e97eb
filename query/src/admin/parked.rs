//! Events that wait: looked at, judged afresh, fetched from the log, discarded.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chassis::http::extract::{Json, OptionalJson, Path};
use chassis::http::problem::Problem;
use chrono::{DateTime, Utc};
use domain::{OrderId, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::interventions::{InterventionDocument, wish};
use super::request::{Actor, Discard, digest};
use super::{Admin, describe};
use crate::api::{failed, times};
use crate::hex;
use crate::intervention::Wish;
use crate::store::answer::ListedParked;

/// The most events of an order that are shown.
const SHOWN_MAX: u32 = 1_000;

/// Names a waiting event.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct ParkedPath {
    /// Whose event
    order_id: Uuid,
    /// Which of its events
    version: u32,
    /// Of the message, as the lists show it
    #[param(schema_with = describe::digest)]
    digest: String,
}

/// An event that waits, or was discarded, whole.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedEvent)]
pub(super) struct ParkedDocument {
    order_id: Uuid,
    version: u32,
    digest: String,
    /// hole, newer or fork
    cause: String,
    topic: String,
    partition: i32,
    /// -1 when it came from the event log
    offset: i64,
    /// The exact text
    message: String,
    /// Name and value, in the order of the record
    #[schema(value_type = Vec<[String; 2]>)]
    headers: Vec<(String, String)>,
    parked_at: DateTime<Utc>,
    discarded_at: Option<DateTime<Utc>>,
    discard_reason: Option<String>,
}

impl From<ListedParked> for ParkedDocument {
    fn from(parked: ListedParked) -> Self {
        let (at, why) = parked.discarded.map(|discarded| (discarded.at_micros, discarded.reason)).unzip();
        Self {
            order_id: parked.order_id.0,
            version: parked.version.0,
            digest: hex::encode(&parked.digest),
            cause: parked.cause,
            topic: parked.topic,
            partition: parked.position.partition,
            offset: parked.position.offset,
            message: parked.message,
            headers: parked.headers.0,
            parked_at: times::told(parked.parked_at_micros),
            discarded_at: at.map(times::told),
            discard_reason: why,
        }
    }
}

/// 404 unless an event of the order waits from this version on, one of those that are `meant`.
async fn waits(
    admin: &Admin,
    order_id: OrderId,
    from: Version,
    meant: impl Fn(&ListedParked) -> bool,
) -> Result<(), Problem> {
    let events = admin.store.parked_of(order_id, from, SHOWN_MAX).await.map_err(failed)?;
    match events.iter().any(|event| event.discarded.is_none() && meant(event)) {
        true => Ok(()),
        false => Err(unknown(format!("no such event of the order {order_id} waits"))),
    }
}

fn unknown(detail: String) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-parked-event", "Unknown parked event", detail)
}

/// Shows what waits of an order, and what was discarded, whole.
#[utoipa::path(
    get,
    path = "/parked/{order_id}",
    operation_id = "get_parked_order",
    tag = "parked",
    params(("order_id" = Uuid, Path, description = "Which order")),
    responses((status = 200, description = "By version, at most 1000", body = Vec<ParkedDocument>))
)]
pub(super) async fn inspect(
    State(admin): State<Arc<Admin>>,
    Path(order_id): Path<Uuid>,
) -> Result<Json<Vec<ParkedDocument>>, Problem> {
    let _permit = admin.requests.try_enter()?;
    let events = admin.store.parked_of(OrderId(order_id), Version::FIRST, SHOWN_MAX).await.map_err(failed)?;
    if events.is_empty() {
        return Err(unknown(format!("no event of the order {order_id} waits or was discarded")));
    }
    Ok(Json(events.into_iter().map(ParkedDocument::from).collect()))
}

/// Judges everything afresh that waits, of every order and whatever it waits for.
#[utoipa::path(
    post,
    path = "/parked/retry",
    operation_id = "retry_parked",
    tag = "parked",
    params(Actor),
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn retry_all(State(admin): State<Arc<Admin>>, actor: Actor) -> Result<Response, Problem> {
    let _permit = admin.requests.try_enter()?;
    wish(&admin, &Wish::RetryParked, None, actor).await
}

/// Judges what waits of an order afresh, whatever it waits for.
#[utoipa::path(
    post,
    path = "/parked/{order_id}/retry",
    operation_id = "retry_parked_order",
    tag = "parked",
    params(("order_id" = Uuid, Path, description = "Which order"), Actor),
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn retry(
    State(admin): State<Arc<Admin>>,
    Path(order_id): Path<Uuid>,
    actor: Actor,
) -> Result<Response, Problem> {
    let order_id = OrderId(order_id);
    let _permit = admin.requests.try_enter()?;
    waits(&admin, order_id, Version::FIRST, |_any| true).await?;
    wish(&admin, &Wish::RetryOrder { order_id }, None, actor).await
}

/// Fetches the missing events of an order from the event log.
#[utoipa::path(
    post,
    path = "/parked/{order_id}/heal",
    operation_id = "heal_parked_order",
    tag = "parked",
    params(("order_id" = Uuid, Path, description = "Which order"), Actor),
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn heal(
    State(admin): State<Arc<Admin>>,
    Path(order_id): Path<Uuid>,
    actor: Actor,
) -> Result<Response, Problem> {
    let order_id = OrderId(order_id);
    let _permit = admin.requests.try_enter()?;
    waits(&admin, order_id, Version::FIRST, |_any| true).await?;
    wish(&admin, &Wish::HealOrder { order_id }, None, actor).await
}

/// Discards a waiting event for good, and judges the rest of the order afresh.
///
/// The row stays, with the reason; the event counts as known when it is read again. No version is skipped: where the
/// discarded event was the only one of its version, the order waits for another.
#[utoipa::path(
    post,
    path = "/parked/{order_id}/{version}/{digest}/discard",
    operation_id = "discard_parked_event",
    tag = "parked",
    params(ParkedPath, Actor),
    request_body = Discard,
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn discard(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<ParkedPath>,
    actor: Actor,
    OptionalJson(body): OptionalJson<Discard>,
) -> Result<Response, Problem> {
    let (order_id, version, digest) = (OrderId(path.order_id), Version(path.version), digest(&path.digest)?);
    let reason = Discard::reason(body)?;
    let _permit = admin.requests.try_enter()?;
    waits(&admin, order_id, version, |event| (event.version, event.digest) == (version, digest)).await?;
    wish(&admin, &Wish::DiscardParked { order_id, version, digest }, Some(reason), actor).await
}
