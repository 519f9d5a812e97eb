//! Read-your-writes over plain HTTP: `min_version`, and how long a reader waits for it.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use chassis::http::problem::{Outcome, Problem};
use domain::{OrderId, Version};

use super::{Api, failed};

/// How long a reader waits for a version unless it says otherwise.
const WAIT_DEFAULT: Duration = Duration::from_secs(2);
/// The longest that a reader may wait.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits for the version that is asked for, if any is; 503 when it does not come in time.
pub(super) async fn until_fresh(
    api: &Api,
    order_id: OrderId,
    min_version: Option<u32>,
    headers: &HeaderMap,
) -> Result<(), Problem> {
    let Some(min_version) = min_version.map(Version) else {
        return Ok(());
    };
    let reached = api.store.order_version(order_id).await.map_err(failed)?.unwrap_or_default();
    if reached >= min_version {
        return Ok(());
    }
    let _permit = api.waits.try_enter()?;
    let wait = wait(headers);
    if api.freshness.wait_for(&api.store, order_id, min_version, wait).await.map_err(failed)? {
        return Ok(());
    }
    let reached = api.store.order_version(order_id).await.map_err(failed)?.unwrap_or_default();
    let mut detail = format!("version {min_version} is not applied yet, version {reached} is");
    if let Some(problem) = api.progress.topic_problem() {
        detail = format!("{detail}; {problem}");
    }
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "read-model-behind", "The read model is behind", detail);
    Err(problem.outcome(Outcome::NotExecuted).with("version", reached.0).retry_after(1))
}

/// RFC 7240: `Prefer: wait=2`, in seconds. A preference that is not understood is ignored, as it asks.
fn wait(headers: &HeaderMap) -> Duration {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = preferences.flat_map(|value| value.split([',', ';'])).map(str::trim);
    let seconds = preferences.find_map(|preference| preference.strip_prefix("wait=")?.trim().parse().ok());
    seconds.map_or(WAIT_DEFAULT, Duration::from_secs).min(WAIT_MAX)
}
