//! REST: extract, execute, answer. No rule of the business lives here.

mod answer;
mod log;
mod orders;
mod products;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chassis::http::admission::{Admission, Permit};
use chassis::http::docs;
use chassis::http::problem::Problem;
use sqlx::PgPool;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::catalog::Catalog;
use crate::executor::Executor;

pub use answer::render;

/// What the handlers need, shared by all of them.
#[derive(Debug)]
pub struct Api {
    /// Where commands go.
    pub executor: Executor,
    /// Where prices come from.
    pub catalog: Catalog,
    /// Where the log is read.
    pub pool: PgPool,
    /// How many commands may be in the house at once (rules R19: one semaphore, shared).
    pub commands: Admission,
    /// How many look-ups may be.
    pub reads: Admission,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "order-command",
        description = "Places orders and leads them through their life. Every accepted command is durable when it is \
                       answered, and every answer carries the order's version for reading your own writes.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    tags((name = "orders", description = "Commands"), (name = "products", description = "The catalogue of prices"),
        (name = "log", description = "The event log, for readers that build themselves anew"))
)]
struct Description;

/// The document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// All routes of the API with their documentation.
pub fn router(api: Api) -> Router {
    let (router, openapi) = routes().split_for_parts();
    router.with_state(Arc::new(api)).merge(docs::router(openapi))
}

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(orders::routes())
        .merge(products::routes())
        .merge(log::routes())
}

/// Admits a command, or refuses it before its body is read. Held to the end of the request.
struct AdmittedCommand(#[expect(dead_code, reason = "held for its drop")] Permit);

impl FromRequestParts<Arc<Api>> for AdmittedCommand {
    type Rejection = Problem;
    async fn from_request_parts(_parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        api.commands.try_enter().map(Self)
    }
}

/// Admits a look-up.
struct AdmittedRead(#[expect(dead_code, reason = "held for its drop")] Permit);

impl FromRequestParts<Arc<Api>> for AdmittedRead {
    type Rejection = Problem;
    async fn from_request_parts(_parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        api.reads.try_enter().map(Self)
    }
}
