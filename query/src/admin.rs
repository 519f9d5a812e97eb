//! What operators ask of the read model: a listener of its own, which only they should reach.
//!
//! - **Invariant:** nothing here touches what is projected. A wish is written down as a row, and the node that projects
//!   grants it.

use std::sync::Arc;

use axum::Router;
use chassis::http::admission::Admission;
use chassis::http::problem::Problem;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::store::Store;

/// Requests of operators at once.
const REQUESTS_MAX: usize = 64;

/// What the handlers share.
#[derive(Debug, Clone)]
pub struct Admin {
    store: Store,
    requests: Admission,
}

impl Admin {
    /// An admin API over this store.
    pub fn new(store: Store) -> Self {
        Self { store, requests: Admission::new("admin", REQUESTS_MAX) }
    }

    /// The routes and their description.
    pub fn router(self) -> (Router, utoipa::openapi::OpenApi) {
        OpenApiRouter::with_openapi(Description::openapi()).with_state(Arc::new(self)).split_for_parts()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "order-query, for operators",
        description = "What was not applied, and what to do about it. Whoever reaches this listener may change the \
            read model; the events themselves nobody changes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem))
)]
struct Description;
