//! How the projection is doing: `GET /projection`, `GET /dead-letters`, `GET /parked`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chassis::http::extract::{Json, Query};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::caching::unkept;
use super::{Api, describe, failed, page, times};
use crate::hex;
use crate::store::answer::{Discarded, ListedLetter, ListedParked};

/// How the projection is doing.
#[derive(Serialize, ToSchema)]
#[schema(as = Projection)]
pub(super) struct ProjectionDocument {
    /// `reading`, `another node reads it`, or why the topic, or a part of it, cannot be read now
    topic: String,
    /// Records that are not applied, over all partitions; null while that is not known
    lag: Option<i64>,
    /// How long the oldest of them has waited at least, in seconds; null while that is not known
    behind_s: Option<f64>,
    /// How long ago the brokers last answered the projector, in seconds; null on a node that does not project
    read_age_s: Option<f64>,
    /// How long ago the ends of the partitions were last known, in seconds
    ends_age_s: f64,
    /// When the newest applied event happened, since this process started
    newest_event_at: Option<DateTime<Utc>>,
    /// Records set aside, counted up to 100000
    dead_letters: i64,
    oldest_dead_letter_at: Option<DateTime<Utc>>,
    /// Events that wait, counted up to 100000
    parked: i64,
    oldest_parked_at: Option<DateTime<Utc>>,
    partitions: Vec<PartitionDocument>,
}

/// How far a partition is applied.
#[derive(Serialize, ToSchema)]
#[schema(as = Partition)]
pub(super) struct PartitionDocument {
    partition: i32,
    /// The offset of the first record that is not applied
    next_offset: i64,
    /// The offset after the last record, when last asked; null before the first answer
    end_offset: Option<i64>,
    /// Records that are not applied; null while that is not known
    lag: Option<i64>,
}

/// A record that can never have come from the relay.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(super) struct LetterDocument {
    topic: String,
    partition: i32,
    offset: i64,
    /// Of the value: names the record together with where it stood
    digest: String,
    key: Option<String>,
    payload: Option<String>,
    /// no-value, unreadable, wrong-key, out-of-place or contradiction
    reason: String,
    detail: String,
    seen_at: DateTime<Utc>,
    /// When an operator discarded it
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    discarded_at: Option<DateTime<Utc>>,
    /// Why
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    discard_reason: Option<String>,
}

/// When and why an operator discarded something.
fn told(discarded: Option<Discarded>) -> (Option<DateTime<Utc>>, Option<String>) {
    let told = discarded.map(|discarded| (DateTime::from_timestamp_micros(discarded.at_micros), discarded.reason));
    told.map(|(at, reason)| (at.unwrap_or_default(), reason)).unzip()
}

/// An event that cannot be applied yet.
#[derive(Serialize, ToSchema)]
#[schema(as = ParkedEvent)]
pub(super) struct ParkedDocument {
    order_id: Uuid,
    version: u32,
    /// Of the message: tells contradicting events of one version apart
    digest: String,
    /// hole, newer or fork
    cause: String,
    topic: String,
    partition: i32,
    offset: i64,
    parked_at: DateTime<Utc>,
    /// When an operator discarded it
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    discarded_at: Option<DateTime<Utc>>,
    /// Why
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    discard_reason: Option<String>,
}

/// How many rows to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LimitQuery {
    /// Rows; 50 unless given
    #[param(schema_with = describe::limit)]
    limit: Option<u32>,
    /// Those that operators discarded instead of those that are left
    #[serde(default)]
    discarded: bool,
}

/// Shows how far each partition is applied.
#[utoipa::path(
    get,
    path = "/projection",
    operation_id = "get_projection",
    tag = "operations",
    responses((status = 200, description = "How it is doing", body = ProjectionDocument))
)]
pub(super) async fn projection(State(api): State<Arc<Api>>, peer: Peer) -> Result<Response, Problem> {
    let _permit = api.reads.try_enter_for(peer)?;
    let backlog = api.store.backlog().await.map_err(failed)?;
    let topic = match api.progress.topic_problem() {
        Some(problem) => problem,
        None if api.progress.is_standby() => "another node reads it".to_owned(),
        None if api.progress.was_verified() => "reading".to_owned(),
        None => "not looked at yet".to_owned(),
    };
    let partitions = api.progress.partitions().into_iter().map(|known| PartitionDocument {
        partition: known.partition,
        next_offset: known.next_offset,
        end_offset: known.end_offset,
        lag: known.lag,
    });
    let known = api.progress.knowledge();
    let newest_event_at = api.progress.newest_event_micros().map(times::told);
    Ok(unkept(Json(ProjectionDocument {
        topic,
        lag: known.lag,
        behind_s: known.behind.map(seconds),
        read_age_s: Some(known.read_age).filter(|_age| !api.progress.is_standby()).map(seconds),
        ends_age_s: seconds(known.ends_age),
        newest_event_at,
        dead_letters: backlog.dead_letters,
        oldest_dead_letter_at: backlog.oldest_letter_micros.map(times::told),
        parked: backlog.parked,
        oldest_parked_at: backlog.oldest_parked_micros.map(times::told),
        partitions: partitions.collect(),
    })))
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)).as_secs_f64()
}

/// Lists the newest dead letters.
#[utoipa::path(
    get,
    path = "/dead-letters",
    operation_id = "list_dead_letters",
    tag = "operations",
    params(LimitQuery),
    responses((status = 200, description = "The newest first", body = Vec<LetterDocument>))
)]
pub(super) async fn dead_letters(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Query(query): Query<LimitQuery>,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let _permit = api.reads.try_enter_for(peer)?;
    let letters = api.store.dead_letters(query.discarded, limit).await.map_err(failed)?;
    let document = |letter: ListedLetter| {
        let (discarded_at, discard_reason) = told(letter.discarded);
        LetterDocument {
            topic: letter.topic,
            partition: letter.position.partition,
            offset: letter.position.offset,
            digest: hex::encode(&letter.digest),
            key: letter.key,
            payload: letter.payload,
            reason: letter.reason,
            detail: letter.detail,
            seen_at: DateTime::from_timestamp_micros(letter.seen_at_micros).unwrap_or_default(),
            discarded_at,
            discard_reason,
        }
    };
    Ok(unkept(Json(letters.into_iter().map(document).collect::<Vec<_>>())))
}

/// Lists the events that wait.
#[utoipa::path(
    get,
    path = "/parked",
    operation_id = "list_parked",
    tag = "operations",
    params(LimitQuery),
    responses((status = 200, description = "By order and version", body = Vec<ParkedDocument>))
)]
pub(super) async fn parked(
    State(api): State<Arc<Api>>,
    peer: Peer,
    Query(query): Query<LimitQuery>,
) -> Result<Response, Problem> {
    let limit = page::limit(query.limit)?;
    let _permit = api.reads.try_enter_for(peer)?;
    let parked = api.store.parked(query.discarded, limit).await.map_err(failed)?;
    let document = |parked: ListedParked| {
        let (discarded_at, discard_reason) = told(parked.discarded);
        ParkedDocument {
            order_id: parked.order_id.0,
            version: parked.version.0,
            digest: hex::encode(&parked.digest),
            cause: parked.cause,
            topic: parked.topic,
            partition: parked.position.partition,
            offset: parked.position.offset,
            parked_at: DateTime::from_timestamp_micros(parked.parked_at_micros).unwrap_or_default(),
            discarded_at,
            discard_reason,
        }
    };
    Ok(unkept(Json(parked.into_iter().map(document).collect::<Vec<_>>())))
}
