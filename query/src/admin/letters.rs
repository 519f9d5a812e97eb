//! Dead letters: looked at, read again, discarded.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chassis::http::extract::{Json, OptionalJson, Path};
use chassis::http::problem::Problem;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::interventions::{InterventionDocument, wish};
use super::request::{Actor, Discard, digest};
use super::{Admin, describe};
use crate::api::{failed, times};
use crate::hex;
use crate::intake::Position;
use crate::intervention::{LetterKey, Wish};
use crate::store::answer::ListedLetter;

/// The most characters of a topic's name.
const TOPIC_CHARS_MAX: usize = 249;

/// Names a dead letter.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct LetterPath {
    /// Where it stood
    topic: String,
    /// Where it stood
    partition: i32,
    /// Where it stood
    offset: i64,
    /// Of its value, as the lists show it
    #[param(schema_with = describe::digest)]
    digest: String,
}

impl LetterPath {
    fn key(self) -> Result<LetterKey, Problem> {
        let Self { topic, partition, offset, digest: text } = self;
        if !is_topic_name(&topic) {
            let detail =
                format!("a topic is named by 1 to {TOPIC_CHARS_MAX} letters, digits, dots, underscores and hyphens");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-id", "Invalid identifier", detail));
        }
        Ok(LetterKey { topic, position: Position { partition, offset }, digest: digest(&text)? })
    }
}

/// Whether Kafka could have a topic of that name.
fn is_topic_name(name: &str) -> bool {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    (1..=TOPIC_CHARS_MAX).contains(&name.len()) && name.chars().all(legal)
}

/// A dead letter, whole.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(super) struct LetterDocument {
    topic: String,
    partition: i32,
    offset: i64,
    digest: String,
    key: Option<String>,
    payload: Option<String>,
    /// Name and value, in the order of the record
    #[schema(value_type = Vec<[String; 2]>)]
    headers: Vec<(String, String)>,
    /// no-value, unreadable, wrong-key, out-of-place or contradiction
    reason: String,
    detail: String,
    seen_at: DateTime<Utc>,
    discarded_at: Option<DateTime<Utc>>,
    discard_reason: Option<String>,
}

impl From<ListedLetter> for LetterDocument {
    fn from(letter: ListedLetter) -> Self {
        let (at, why) = letter.discarded.map(|discarded| (discarded.at_micros, discarded.reason)).unzip();
        Self {
            topic: letter.topic,
            partition: letter.position.partition,
            offset: letter.position.offset,
            digest: hex::encode(&letter.digest),
            key: letter.key,
            payload: letter.payload,
            headers: letter.headers.0,
            reason: letter.reason,
            detail: letter.detail,
            seen_at: times::told(letter.seen_at_micros),
            discarded_at: at.map(times::told),
            discard_reason: why,
        }
    }
}

async fn known(admin: &Admin, key: &LetterKey) -> Result<ListedLetter, Problem> {
    admin.store.dead_letter(key).await.map_err(failed)?.ok_or_else(|| unknown("there is no such dead letter"))
}

/// One that was not discarded.
async fn kept(admin: &Admin, key: &LetterKey) -> Result<(), Problem> {
    match known(admin, key).await?.discarded {
        None => Ok(()),
        Some(_) => Err(unknown("the dead letter is discarded")),
    }
}

fn unknown(detail: &'static str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-dead-letter", "Unknown dead letter", detail)
}

/// Shows a dead letter whole.
#[utoipa::path(
    get,
    path = "/dead-letters/{topic}/{partition}/{offset}/{digest}",
    operation_id = "get_dead_letter",
    tag = "dead letters",
    params(LetterPath),
    responses((status = 200, description = "The record, and why it was set aside", body = LetterDocument))
)]
pub(super) async fn inspect(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<LetterPath>,
) -> Result<Json<LetterDocument>, Problem> {
    let key = path.key()?;
    let _permit = admin.requests.try_enter()?;
    known(&admin, &key).await.map(|letter| Json(letter.into()))
}

/// Reads every dead letter again, the oldest first.
///
/// One that this program understands is no dead letter any more: its event is applied, or waits, or is known already.
#[utoipa::path(
    post,
    path = "/dead-letters/retry",
    operation_id = "retry_dead_letters",
    tag = "dead letters",
    params(Actor),
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn retry_all(State(admin): State<Arc<Admin>>, actor: Actor) -> Result<Response, Problem> {
    let _permit = admin.requests.try_enter()?;
    wish(&admin, &Wish::RetryDeadLetters, None, actor).await
}

/// Reads a dead letter again.
#[utoipa::path(
    post,
    path = "/dead-letters/{topic}/{partition}/{offset}/{digest}/retry",
    operation_id = "retry_dead_letter",
    tag = "dead letters",
    params(LetterPath, Actor),
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn retry(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<LetterPath>,
    actor: Actor,
) -> Result<Response, Problem> {
    let key = path.key()?;
    let _permit = admin.requests.try_enter()?;
    kept(&admin, &key).await?;
    wish(&admin, &Wish::RetryDeadLetter(key), None, actor).await
}

/// Discards a dead letter for good.
///
/// The row stays, with the reason; the record does not come back when the topic is read again.
#[utoipa::path(
    post,
    path = "/dead-letters/{topic}/{partition}/{offset}/{digest}/discard",
    operation_id = "discard_dead_letter",
    tag = "dead letters",
    params(LetterPath, Actor),
    request_body = Discard,
    responses(
        (status = 200, description = "What came of it", body = InterventionDocument),
        (status = 202, description = "Not done yet: `Location` tells", body = InterventionDocument,
            headers(("Location"))),
    )
)]
pub(super) async fn discard(
    State(admin): State<Arc<Admin>>,
    Path(path): Path<LetterPath>,
    actor: Actor,
    OptionalJson(body): OptionalJson<Discard>,
) -> Result<Response, Problem> {
    let key = path.key()?;
    let reason = Discard::reason(body)?;
    let _permit = admin.requests.try_enter()?;
    kept(&admin, &key).await?;
    wish(&admin, &Wish::DiscardDeadLetter(key), Some(reason), actor).await
}
