//! What operators ask of the read model: a listener of its own, which only they should reach.
//!
//! - **Invariant:** nothing here touches what is projected. A wish is written down as a row, and the node that projects
//!   grants it.
#![expect(unused_qualifications, reason = "the macros of utoipa qualify what they need not")]

mod describe;

mod generations;

mod interventions;

mod letters;

mod parked;

mod request;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use chassis::http::admission::Admission;
use chassis::http::problem::{Outcome, Problem};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::rebuild::works::Office;
use crate::store::Store;
use crate::store::desk::Desk;

/// Requests of operators at once.
const REQUESTS_MAX: usize = 64;
/// How long a request waits for its wish to be granted.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// When to ask again where nothing is rebuilt, in seconds: another process may be the one that does.
const RETRY_AFTER_S: u64 = 30;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Admin {
    store: Store,
    desk: Desk,
    requests: Admission,
    wait_max: Duration,
    office: Option<Office>,
}

impl Admin {
    /// An admin API over this store, whose wishes go to this desk.
    pub fn new(store: Store, desk: Desk) -> Self {
        Self { store, desk, requests: Admission::new("admin", REQUESTS_MAX), wait_max: WAIT_MAX, office: None }
    }

    /// With requests that wait so long for their wish to be granted.
    #[must_use]
    pub fn waiting(self, wait_max: Duration) -> Self {
        Self { wait_max, ..self }
    }

    /// With works that rebuild.
    #[must_use]
    pub fn rebuilding(self, office: Office) -> Self {
        Self { office: Some(office), ..self }
    }

    /// Where rebuilds are asked for.
    fn office(&self) -> Result<&Office, Problem> {
        let detail = "this process does not rebuild";
        let title = "Not ready";
        self.office.as_ref().ok_or_else(|| {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", title, detail);
            problem.outcome(Outcome::NotExecuted).retry_after(RETRY_AFTER_S)
        })
    }

    /// With room for this many requests at once.
    #[must_use]
    pub fn admitting(self, requests_max: usize) -> Self {
        Self { requests: Admission::new("admin", requests_max), ..self }
    }

    /// The routes and their description.
    pub fn router(self) -> (Router, utoipa::openapi::OpenApi) {
        let (router, description) = routes().with_state(Arc::new(self)).split_for_parts();
        (router, describe::completed(description))
    }
}

/// The description of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    describe::completed(routes().into_openapi())
}

fn routes() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(letters::inspect))
        .routes(routes!(letters::retry_all))
        .routes(routes!(letters::retry))
        .routes(routes!(letters::discard))
        .routes(routes!(parked::inspect))
        .routes(routes!(parked::retry_all))
        .routes(routes!(parked::retry))
        .routes(routes!(parked::heal))
        .routes(routes!(parked::discard))
        .routes(routes!(generations::list))
        .routes(routes!(generations::progress, generations::rebuild, generations::stop))
        .routes(routes!(generations::roll_back))
        .routes(routes!(interventions::list))
        .routes(routes!(interventions::detail))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "order-query, for operators",
        description = "What was not applied, and what to do about it. Whoever reaches this listener may change the \
            read model; the events themselves nobody changes. A `POST` writes a wish down and waits a few seconds \
            until the node that projects has granted it: 200 with what came of it, else 202 with where to ask.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags(
        (name = "dead letters", description = "Records that can never have come from the relay"),
        (name = "parked", description = "Events that cannot be applied yet"),
        (name = "generations", description = "The read model built anew beside the one that is served"),
        (name = "interventions", description = "What was asked for, by whom, and what came of it")
    )
)]
struct Description;
