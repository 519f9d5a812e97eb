//! REST: extract, execute, answer. No rule of the business lives here.
#![expect(unused_qualifications, reason = "the macros of utoipa qualify what they need not")]

mod answer;
mod describe;
mod log;
mod orders;
mod products;
mod reader;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chassis::http::admission::{Admission, Permit};
use chassis::http::docs;
use chassis::http::index::{self, Index};
use chassis::http::peer::Peer;
use chassis::http::problem::Problem;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::catalog::Catalog;
use crate::executor::Executor;

pub use answer::render;
pub use log::{Log, PAGES_HELD_MAX, PAGES_READ_MAX};
pub use reader::{InvalidReaderUrl, ReaderUrl};

/// What the handlers need, shared by all of them.
#[derive(Debug)]
pub struct Api {
    /// Where commands go.
    pub executor: Executor,
    /// Where prices come from.
    pub catalog: Catalog,
    /// Where clients read orders, if it is known.
    pub reader: Option<ReaderUrl>,
    /// Where the log is read.
    pub log: Log,
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
    components(schemas(orders::ItemIn)),
    tags((name = "orders", description = "Commands"), (name = "products", description = "The catalogue of prices"),
        (name = "log", description = "The event log, for readers that build themselves anew"))
)]
struct Description;

/// The document of the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    describe::completed(routes().into_openapi())
}

/// All routes of the API with their documentation.
pub fn router(api: Api) -> Router {
    let (router, openapi) = routes().split_for_parts();
    let links = [("docs", "/docs"), ("openapi", "/openapi.json"), ("products", "/products")];
    router.with_state(Arc::new(api)).merge(docs::router(describe::completed(openapi))).merge(index(links))
}

/// `GET /`, with these links beside those that every listener of this program has.
pub fn index<const N: usize>(links: [(&'static str, &'static str); N]) -> Router {
    let everywhere = [("health", "/health/ready"), ("metrics", "/metrics")];
    let links = everywhere.into_iter().chain(links).collect();
    index::router(Index { name: "order-command", version: env!("CARGO_PKG_VERSION"), links })
}

fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .merge(orders::routes())
        .merge(products::routes())
        .merge(reader::routes())
        .merge(log::routes())
}

/// The way in of a command. There has to be room when its head arrives, and it enters when its body is here.
///
/// In between it holds nothing: a body that never comes must not keep others out.
struct Entrance {
    commands: Admission,
    peer: Peer,
}

impl Entrance {
    /// Admits the command. The permit is held to the end of the request.
    fn enter(&self) -> Result<Permit, Problem> {
        self.commands.try_enter_for(self.peer)
    }
}

impl FromRequestParts<Arc<Api>> for Entrance {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, api).await;
        api.commands.require_room_for(peer)?;
        Ok(Self { commands: api.commands.clone(), peer })
    }
}

/// Admits a look-up.
struct AdmittedRead(#[expect(dead_code, reason = "held for its drop")] Permit);

impl FromRequestParts<Arc<Api>> for AdmittedRead {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let Ok(peer) = Peer::from_request_parts(parts, api).await;
        api.reads.try_enter_for(peer).map(Self)
    }
}
