//! Wishes: written down, waited for, and looked up.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::{Json, Path, Query};
use chassis::http::problem::{Outcome as Executed, Problem};
use chassis::telemetry::ErrorChain;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Admin;
use super::request::Actor;
use crate::api::{describe, failed, page, times};
use crate::intervention::{Intervention, Outcome, Wish};

/// How often a request looks whether its wish is granted.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// When to ask again while too many wishes wait, in seconds.
const RETRY_AFTER_S: u64 = 5;

/// A wish and what came of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Intervention)]
pub(super) struct InterventionDocument {
    id: Uuid,
    /// retry-dead-letters, retry-dead-letter, discard-dead-letter, retry-parked, retry-order, discard-parked or
    /// heal-order
    kind: String,
    /// What it is about; null where it is about all
    target: Value,
    reason: Option<String>,
    actor: Option<String>,
    requested_at: DateTime<Utc>,
    /// Null while it waits or goes on
    done_at: Option<DateTime<Utc>>,
    outcome: OutcomeDocument,
}

/// What came of a wish so far.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InterventionOutcome)]
pub(super) struct OutcomeDocument {
    /// Dead letters or waiting events that were looked at
    looked_at: usize,
    /// Events applied, those that had waited for them among them
    applied: usize,
    /// Events that were known already
    duplicates: usize,
    /// Events that wait now
    waiting: usize,
    /// Records that are dead letters now
    set_aside: usize,
    /// Dead letters or events that never come back
    discarded: usize,
    /// Why it could not be carried out
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
}

impl From<Outcome> for OutcomeDocument {
    fn from(outcome: Outcome) -> Self {
        let Outcome { looked_at, applied, duplicates, waiting, set_aside, discarded, error } = outcome;
        Self { looked_at, applied, duplicates, waiting, set_aside, discarded, error }
    }
}

impl From<Intervention> for InterventionDocument {
    fn from(wish: Intervention) -> Self {
        Self {
            id: wish.id,
            kind: wish.kind,
            target: serde_json::from_str(&wish.target).unwrap_or_default(),
            reason: wish.reason,
            actor: wish.actor,
            requested_at: times::told(wish.requested_at_micros),
            done_at: wish.done_at_micros.map(times::told),
            outcome: wish.outcome.into(),
        }
    }
}

/// How many rows to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LimitQuery {
    /// Rows; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
}

/// Lists the newest interventions.
#[utoipa::path(
    get,
    path = "/interventions",
    operation_id = "list_interventions",
    tag = "interventions",
    params(LimitQuery),
    responses((status = 200, description = "The newest first", body = Vec<InterventionDocument>))
)]
pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Query(query): Query<LimitQuery>,
) -> Result<Json<Vec<InterventionDocument>>, Problem> {
    let limit = page::limit(query.limit)?;
    let _permit = admin.requests.try_enter()?;
    let wishes = admin.store.interventions(limit).await.map_err(failed)?;
    Ok(Json(wishes.into_iter().map(InterventionDocument::from).collect()))
}

/// Shows an intervention.
#[utoipa::path(
    get,
    path = "/interventions/{id}",
    operation_id = "get_intervention",
    tag = "interventions",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "What was asked for and what came of it", body = InterventionDocument))
)]
pub(super) async fn detail(
    State(admin): State<Arc<Admin>>,
    Path(id): Path<Uuid>,
) -> Result<Json<InterventionDocument>, Problem> {
    let _permit = admin.requests.try_enter()?;
    let found = admin.store.intervention(id).await.map_err(failed)?;
    let unknown = || {
        let detail = format!("nobody asked for an intervention {id}");
        Problem::new(StatusCode::NOT_FOUND, "unknown-intervention", "Unknown intervention", detail)
    };
    found.map(|wish| Json(wish.into())).ok_or_else(unknown)
}

/// Writes a wish down and waits a while for it to be granted.
pub(super) async fn wish(
    admin: &Admin,
    wish: &Wish,
    reason: Option<String>,
    Actor(actor): Actor,
) -> Result<Response, Problem> {
    let (kind, target) = wish.to_stored().map_err(|error| failed(error.into()))?;
    let wish = Intervention {
        id: Uuid::now_v7(),
        kind,
        target,
        reason,
        actor,
        requested_at_micros: Utc::now().timestamp_micros(),
        reached: None,
        outcome: Outcome::default(),
        done_at_micros: None,
    };
    if !admin.desk.write(&wish).await.map_err(failed)? {
        let detail = "the node that projects has no room for another intervention now";
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail);
        return Err(problem.outcome(Executed::NotExecuted).retry_after(RETRY_AFTER_S));
    }
    let id = wish.id;
    Ok(match granted(admin, wish).await {
        wish if wish.done_at_micros.is_some() => Json(InterventionDocument::from(wish)).into_response(),
        wish => {
            let location = [(LOCATION, format!("/interventions/{id}"))];
            (StatusCode::ACCEPTED, location, Json(InterventionDocument::from(wish))).into_response()
        }
    })
}

/// The wish when it is granted, or as it is after the longest wait.
async fn granted(admin: &Admin, mut wish: Intervention) -> Intervention {
    let deadline = Instant::now() + admin.wait_max;
    while wish.done_at_micros.is_none() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_INTERVAL).await;
        match admin.store.intervention(wish.id).await {
            Ok(Some(seen)) => wish = seen,
            Ok(None) => {}
            // It is written down: whoever asks later is told.
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "what came of an intervention is not known now"),
        }
    }
    wish
}
