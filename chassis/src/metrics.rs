//! Metrics: the `metrics` facade everywhere, Prometheus text at `GET /metrics`.
//!
//! Names and descriptions live in each crate's own `metrics.rs`; this module only collects and renders.

use std::sync::OnceLock;
use std::time::Duration;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

/// Buckets of every histogram whose name ends in `_seconds`: 1 ms to 10 s.
pub const SECONDS_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often recorded histogram samples are folded into their buckets when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// The process-wide recorder; clones are cheap and show the same numbers.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Installs the recorder, or returns the one installed before.
    pub fn install() -> Self {
        let handle = HANDLE.get_or_init(build).clone();
        Self { handle }
    }

    /// All metrics as Prometheus text.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Serves `GET /metrics`.
    pub fn router(&self) -> Router {
        let metrics = self.clone();
        Router::new().route(
            "/metrics",
            get(move || {
                let text = metrics.render();
                async move { ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
            }),
        )
    }
}

fn build() -> PrometheusHandle {
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    let builder = match builder.set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS) {
        Ok(builder) => builder,
        Err(error) => {
            // The only refusal is an empty list, which the constant is not.
            tracing::error!(%error, "histogram buckets were refused; summaries are shown instead");
            PrometheusBuilder::new().with_recommended_naming(true)
        }
    };
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    if let Err(error) = metrics::set_global_recorder(recorder) {
        tracing::error!(%error, "another metrics recorder is installed; /metrics will stay empty");
    }
    spawn_upkeep(handle.clone());
    handle
}

/// Histogram samples pile up until somebody folds them; without a scraper this thread is that somebody.
fn spawn_upkeep(handle: PrometheusHandle) {
    let spawned = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
        loop {
            std::thread::sleep(UPKEEP_INTERVAL);
            handle.run_upkeep();
        }
    });
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread for the upkeep of metrics; only scrapes fold samples");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_shows_the_same_numbers() {
        let first = Metrics::install();
        let second = Metrics::install();
        metrics::counter!("chassis_installs_total").increment(2);
        metrics::histogram!("chassis_install_duration_seconds").record(0.002);
        assert!(first.render().contains("chassis_installs_total 2"), "{}", first.render());
        assert!(
            second.render().contains("chassis_install_duration_seconds_bucket{le=\"0.0025\"} 1"),
            "{}",
            second.render()
        );
    }
}
