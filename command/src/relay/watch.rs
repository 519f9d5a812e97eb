//! Looking at the topic's settings while the service runs: somebody may change them at any time (rules R24).

use std::convert::Infallible;
use std::time::Duration;

use chassis::kafka::topic::{self, Unfit};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Setup;

/// How often to look, and how long a look may take.
const LOOK: Duration = Duration::from_secs(10);
const LOOK_DEADLINE: Duration = Duration::from_secs(8);

/// Looks again and again until `shutdown`. What is wrong is logged once, is a metric, and is part of readiness.
///
/// Publishing goes on meanwhile: events go to the partitions that readers read by their own count, and the log keeps what a
/// retention would delete. A relay that takes office later refuses, as a start does.
///
/// # Errors
///
/// None.
pub async fn watch(setup: Setup, shutdown: CancellationToken) -> Result<(), Infallible> {
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        look(&setup).await;
    }
    Ok(())
}

/// One look. A broker that does not answer is the relay's to tell; it leaves what was known to grow old.
pub async fn look(setup: &Setup) {
    match timeout(LOOK_DEADLINE, topic::verify(&setup.brokers, &setup.topic)).await {
        Ok(Ok(_verified)) => setup.status.drifts(None),
        Ok(Err(Unfit::Drift(drift))) => setup.status.drifts(Some(drift.to_string())),
        Ok(Err(error)) => tracing::debug!(%error, "the topic's settings cannot be read now"),
        Err(_elapsed) => tracing::debug!("the topic's settings cannot be read in time"),
    }
}
