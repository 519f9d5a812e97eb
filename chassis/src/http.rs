//! What every HTTP API here shares: one error body, one accept loop, one set of probes.
//!
//! A service builds its routes, hands them to [`finish`], and serves the result with [`serve`].
//!
//! **Invariant:** no response leaves with an error body other than [`problem::Problem`]. hyper refuses what is no HTTP
//! (400) and heads that are too large (431) without a body, and offers no way to give them one.

pub mod problem;

pub mod extract;

pub mod errors;

pub mod health;

pub mod admission;

pub mod describe;

pub mod peer;

pub mod docs;

pub mod index;

mod body;
mod head;
mod limits;
mod observe;
mod proxies;
mod server;

pub use limits::Limits;
pub use observe::{RequestId, finish};
pub use proxies::ForwardedHeader;
pub use server::{ServeError, bind, serve};
