//! Generations of the read model: what there is, the next one, and the way back.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse as _, Response};
use chassis::http::extract::Json;
use chassis::http::problem::{Outcome, Problem};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Admin, describe};
use crate::api::{failed, times};
use crate::generation::{Generation, Source};
use crate::rebuild::works::{Job, Status};

/// When to ask again while a rebuild is going on, in seconds.
const RETRY_AFTER_S: u64 = 10;

/// A generation of the read model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Generation)]
pub(super) struct GenerationDocument {
    number: i64,
    /// Whether readers are served from it
    live: bool,
    /// building or complete
    state: &'static str,
    /// topic or log
    source: &'static str,
    /// service or command
    builder: &'static str,
    /// Which revision of each projection fills it
    revisions: Value,
    started_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
    /// What its verification counted: distinct events, orders that wait, and of each table its rows and their digest; or
    /// the difference that it found
    report: Option<Value>,
}

/// What is being built, and how the last building ended.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Rebuild)]
pub(super) struct RebuildDocument {
    /// rebuild, rollback, or null
    running: Option<&'static str>,
    /// Which generation is built; by another process, where nothing is running here
    generation: Option<i64>,
    /// reading, indexing, verifying or promoted
    phase: Option<&'static str>,
    /// Records read
    done: i64,
    /// Records there are; as many as are read, where a log does not tell
    total: i64,
    /// Records a second
    rate_per_s: u64,
    /// How long the reading will take at this rate, in seconds
    eta_s: Option<u64>,
    /// The generation that the last job here promoted
    promoted: Option<i64>,
    /// Why the last job here did not come to its end
    failure: Option<String>,
}

/// What to build from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RebuildRequest {
    /// Topic unless given
    #[schema(schema_with = describe::source)]
    source: Option<String>,
}

/// Lists the generations.
#[utoipa::path(
    get,
    path = "/generations",
    operation_id = "list_generations",
    tag = "generations",
    responses((status = 200, description = "The oldest first", body = Vec<GenerationDocument>))
)]
pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Result<Json<Vec<GenerationDocument>>, Problem> {
    let _permit = admin.requests.try_enter()?;
    let generations = &admin.office()?.generations;
    let live = generations.live().await.map_err(failed)?;
    let document = |generation: Generation| GenerationDocument {
        number: generation.number,
        live: generation.number == live.number,
        state: generation.state.as_str(),
        source: generation.source.as_str(),
        builder: generation.builder.as_str(),
        revisions: serde_json::from_str(&generation.revisions.to_json()).unwrap_or_default(),
        started_at: times::told(generation.started_at_micros),
        completed_at: generation.completed_at_micros.map(times::told),
        report: generation.report.and_then(|report| serde_json::from_str(&report).ok()),
    };
    Ok(Json(generations.list().await.map_err(failed)?.into_iter().map(document).collect()))
}

/// Shows how far a rebuild is.
#[utoipa::path(
    get,
    path = "/rebuild",
    operation_id = "get_rebuild",
    tag = "generations",
    responses((status = 200, description = "What is being done", body = RebuildDocument))
)]
pub(super) async fn progress(State(admin): State<Arc<Admin>>) -> Result<Json<RebuildDocument>, Problem> {
    let _permit = admin.requests.try_enter()?;
    let office = admin.office()?;
    let Status { running, told, last } = office.status();
    let mut document = RebuildDocument {
        running: running.map(|job| match job {
            Job::Rebuild(_) => "rebuild",
            Job::RollBack => "rollback",
        }),
        generation: told.map(|told| told.number),
        phase: told.map(|told| told.phase.as_str()),
        done: told.map_or(0, |told| told.built.done),
        total: told.map_or(0, |told| told.built.total),
        rate_per_s: told.map_or(0, |told| told.rate_per_s),
        eta_s: told.and_then(|told| told.eta()).map(|eta| eta.as_secs()),
        promoted: last.as_ref().and_then(|last| last.as_ref().ok().copied()),
        failure: last.and_then(Result::err),
    };
    if running.is_none() {
        // Another process may be at it: its own tables tell.
        let building = office.generations.list().await.map_err(failed)?;
        if let Some(found) = building.into_iter().find(Generation::is_begun) {
            document.generation = Some(found.number);
            document.phase = Some("reading");
            (document.done, document.total) = (found.built.done, found.built.total);
        }
    }
    Ok(Json(document))
}

/// Builds the next generation and promotes it.
#[utoipa::path(
    post,
    path = "/rebuild",
    operation_id = "start_rebuild",
    tag = "generations",
    request_body = RebuildRequest,
    responses(
        (status = 202, description = "It is begun, or gone on with; `Location` tells how far it is", headers(("Location"))),
    )
)]
pub(super) async fn rebuild(
    State(admin): State<Arc<Admin>>,
    Json(request): Json<RebuildRequest>,
) -> Result<Response, Problem> {
    let source = match request.source.as_deref() {
        None => Source::Topic,
        Some(name) => Source::parse(name).ok_or_else(|| {
            let detail = "source: must be topic or log";
            Problem::new(StatusCode::BAD_REQUEST, "invalid-source", "Invalid source", detail).error(
                "source",
                "invalid",
                "must be topic or log",
            )
        })?,
    };
    let _permit = admin.requests.try_enter()?;
    begin(&admin, Job::Rebuild(source))
}

/// Stops a rebuild. What is built is kept, and the next one goes on from it.
#[utoipa::path(
    delete,
    path = "/rebuild",
    operation_id = "stop_rebuild",
    tag = "generations",
    responses((status = 202, description = "It will stop within a batch"))
)]
pub(super) async fn stop(State(admin): State<Arc<Admin>>) -> Result<StatusCode, Problem> {
    let _permit = admin.requests.try_enter()?;
    admin.office()?.stop();
    Ok(StatusCode::ACCEPTED)
}

/// Goes back to the generation that was served before.
#[utoipa::path(
    post,
    path = "/rollback",
    operation_id = "roll_back",
    tag = "generations",
    responses(
        (status = 202, description = "It catches up and is served then; `Location` tells how far it is", headers(("Location"))),
    )
)]
pub(super) async fn roll_back(State(admin): State<Arc<Admin>>) -> Result<Response, Problem> {
    let _permit = admin.requests.try_enter()?;
    let live = admin.office()?.generations.live().await.map_err(failed)?;
    if live.previous.is_none() {
        let detail = format!("generation {} is the first one", live.number);
        let title = "No previous generation";
        return Err(Problem::new(StatusCode::CONFLICT, "no-previous-generation", title, detail));
    }
    begin(&admin, Job::RollBack)
}

fn begin(admin: &Admin, job: Job) -> Result<Response, Problem> {
    if !admin.office()?.ask(job) {
        let detail = "a rebuild or a way back is going on on this node; GET /rebuild tells how far it is";
        let problem = Problem::new(StatusCode::CONFLICT, "rebuild-running", "A rebuild is going on", detail);
        return Err(problem.outcome(Outcome::NotExecuted).retry_after(RETRY_AFTER_S));
    }
    Ok((StatusCode::ACCEPTED, [(LOCATION, "/rebuild")]).into_response())
}
