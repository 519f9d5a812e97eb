//! Where orders are read: not here. The `Location` of a new order names `/orders/{id}`, and whoever follows it is sent to order-query.

use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use chassis::http::extract::Path;
use chassis::http::problem::{Outcome, Problem};
use domain::OrderId;
use thiserror::Error;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Api;
use super::answer::invalid_query;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(find))
}

/// The base URL of order-query, as clients reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReaderUrl(String);

/// A text that is no base URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not the base URL of order-query, such as http://127.0.0.1:8001")]
pub struct InvalidReaderUrl;

impl FromStr for ReaderUrl {
    type Err = InvalidReaderUrl;

    fn from_str(text: &str) -> Result<Self, InvalidReaderUrl> {
        let base = text.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_malformed| InvalidReaderUrl)?;
        let is_web = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        let is_base = uri.query().is_none() && base.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if is_web && is_host && is_base { Ok(Self(base.to_owned())) } else { Err(InvalidReaderUrl) }
    }
}

impl ReaderUrl {
    /// Where an order is read. Without a query of its own, the reader is asked to wait until it has seen the order at all: whoever has just
    /// placed it is often faster than the reader.
    fn order(&self, order_id: OrderId, query: Option<&str>) -> String {
        let query = query.filter(|query| !query.is_empty()).unwrap_or("min_version=1");
        format!("{}/orders/{order_id}?{query}", self.0)
    }
}

/// Be sent to where an order is read.
///
/// This service takes commands and reads nothing. The query is passed on; without one, `min_version=1` makes order-query wait for an order
/// that was placed a moment ago.
#[utoipa::path(
    get, path = "/orders/{order_id}", operation_id = "find_order", tag = "orders", params(("order_id" = Uuid, Path)),
    responses((status = 307, description = "`Location` is the order at order-query", headers(("Location"))))
)]
async fn find(
    State(api): State<Arc<Api>>,
    Path(order_id): Path<OrderId>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let reader = api.reader.as_ref().ok_or_else(read_elsewhere)?;
    let order = HeaderValue::try_from(reader.order(order_id, query.as_deref()))
        .map_err(|invalid| invalid_query("query", invalid.to_string()))?;
    Ok((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, order)]).into_response())
}

fn read_elsewhere() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "read-elsewhere",
        "Orders are read at order-query",
        "order-command takes commands and reads no orders: ask order-query for the same path",
    )
    .outcome(Outcome::NotExecuted)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_reader_is_named_by_its_base_url() {
        let order_id = OrderId(Uuid::from_u128(7));
        for (base, query, expected) in [
            (
                "http://127.0.0.1:8001",
                None,
                "http://127.0.0.1:8001/orders/00000000-0000-0000-0000-000000000007?min_version=1",
            ),
            (
                "https://shop.example/read/",
                Some("as_of_version=2"),
                "https://shop.example/read/orders/00000000-0000-0000-0000-000000000007?as_of_version=2",
            ),
        ] {
            assert_eq!(base.parse::<ReaderUrl>().unwrap().order(order_id, query), expected);
        }
        for bad in [
            "",
            "shop.example",
            "/orders",
            "ftp://shop.example",
            "http://",
            "http://h?a=b",
            "http://h/#a",
            "http://u:p@h",
            "http://h/ä",
        ] {
            assert_eq!(bad.parse::<ReaderUrl>(), Err(InvalidReaderUrl), "{bad}");
        }
    }
}
