//! Read-your-writes over plain HTTP: `min_version` and `after`, and how long a reader waits for them. What waiting
//! cannot bring is told at once.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use chassis::http::peer::Peer;
use chassis::http::problem::{Outcome, Problem};
use domain::{OrderId, Version};
use serde::Deserialize;
use uuid::Uuid;

use super::{Api, failed, stale};
use crate::store::answer::Waiting;

/// How long a reader waits for a version unless it says otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// The longest that a reader may wait.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);
/// When to ask a projector again that fails, in seconds: it has failed for longer already.
const FAILED_RETRY_AFTER_S: u64 = 30;

/// What an answer has to include: an order at this version or a later one. Written `ORDER_ID:VERSION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Seen {
    order_id: OrderId,
    version: Version,
}

impl Seen {
    /// The `min_version` of an order's own pages.
    pub(super) fn min_version(order_id: OrderId, version: Option<u32>) -> Option<Self> {
        version.map(|version| Self { order_id, version: Version(version) })
    }
}

impl TryFrom<String> for Seen {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parse = || {
            let (id, version) = text.rsplit_once(':')?;
            let version = version.parse().ok().map(Version).filter(|version| *version >= Version::FIRST)?;
            Some(Self { order_id: OrderId(Uuid::parse_str(id).ok()?), version })
        };
        parse().ok_or("must be ORDER_ID:VERSION, as a command's answer tells them")
    }
}

/// Waits for what is asked for, if anything is. 503 `read-model-behind` when it does not come in time; 409
/// `projection-stopped` and 503 `projection-failed` when waiting is of no use.
pub(super) async fn until_fresh(
    api: &Api,
    peer: Peer,
    wanted: Option<Seen>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let Some(Seen { order_id, version }) = wanted else {
        return Ok(());
    };
    let looking = api.reads.try_enter_for(peer)?;
    let mut prospect = api.store.prospect(order_id, version).await.map_err(failed)?;
    drop(looking);
    if !prospect.is_settled(version) && api.progress.persistent_reason().is_none() {
        let _permit = api.waits.try_enter_for(peer)?;
        let waited = api.freshness.wait_for(&api.store, order_id, version, wait(headers)).await;
        prospect = waited.map_err(failed)?;
    }
    let reached = prospect.reached;
    if reached >= version {
        return Ok(());
    }
    let problem = match (prospect.stopped, api.progress.persistent_reason()) {
        (Some(waiting), _) => projection_stopped(order_id, &waiting),
        (None, Some(reason)) => projection_failed(reason),
        (None, None) => behind(api, order_id, version, reached).await?,
    };
    Err(problem.outcome(Outcome::NotExecuted).with("order_id", order_id.to_string()).with("version", reached.0))
}

/// It may come: nothing is known that forbids it.
async fn behind(api: &Api, order_id: OrderId, wanted: Version, reached: Version) -> Result<Problem, Problem> {
    let mut detail = format!("version {wanted} of the order {order_id} is not applied yet, version {reached} is");
    // What waits here waits for an event that is missing, and may still come.
    let hole = api.store.waiting(order_id).await.map_err(failed)?.filter(|waiting| waiting.cause == "hole");
    if let Some(Waiting { version, .. }) = &hole {
        detail = format!("{detail}; version {version} is there and waits for version {}", reached.next());
    }
    if let Some(problem) = api.progress.topic_problem() {
        detail = format!("{detail}; {problem}");
    }
    let title = "The read model is behind";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "read-model-behind", title, detail).retry_after(1);
    Ok(match hole {
        Some(hole) => problem.with("stale", stale(&hole)).with("missing_version", reached.next().0),
        None => problem,
    })
}

/// No event of the order is applied any more until somebody does something: waiting is of no use, and older versions
/// can be read.
fn projection_stopped(order_id: OrderId, waiting: &Waiting) -> Problem {
    let Waiting { cause, version } = waiting;
    let why = match cause.as_str() {
        "fork" => "contradicts another event of the order, or follows one that does",
        _ => "was written by a newer release than this one",
    };
    let detail = format!("the order {order_id} is stopped: the event of version {version} {why}");
    Problem::new(StatusCode::CONFLICT, "projection-stopped", "The order is not projected any more", detail)
        .with("stale", stale(waiting))
}

fn projection_failed(reason: &'static str) -> Problem {
    let detail = format!("no event can be applied now, and for some time already: {reason}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "projection-failed", "The projection fails", detail)
        .with("reason", reason)
        .retry_after(FAILED_RETRY_AFTER_S)
}

/// RFC 7240: `Prefer: wait=2`, in seconds. A preference that is not understood is ignored, as it asks.
fn wait(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds = preferences.find_map(|preference| preference.strip_prefix("wait=")?.trim().parse().ok());
    seconds.map_or(WAIT_DEFAULT, Duration::from_secs).min(WAIT_MAX)
}
