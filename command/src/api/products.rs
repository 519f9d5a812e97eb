//! The catalogue's prices.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::LINK;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::http::extract::{Json, Path, Query};
use chassis::http::problem::{Outcome, Problem};
use domain::{Currency, Money, Sku};
use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::answer::{failed_change, failed_look_up, page_limit};
use super::{AdmittedRead, Api, Entrance, describe};
use crate::catalog::Product;

/// The most products of one page, and how many without asking.
pub(super) const PAGE_PRODUCTS_MAX: u32 = 200;
const PAGE_PRODUCTS: u32 = 50;
/// The most characters of a product's name.
pub(super) const NAME_CHARS_MAX: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get, put))
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Product)]
struct ProductBody {
    #[schema(schema_with = describe::sku)]
    sku: Sku,
    /// Exact, as text: what `PUT` takes.
    #[schema(schema_with = describe::decimal)]
    unit_price: String,
    #[schema(schema_with = describe::currency)]
    currency: Currency,
    /// Missing when it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
}

impl From<Product> for ProductBody {
    fn from(Product { sku, unit_price, name }: Product) -> Self {
        Self { sku, unit_price: unit_price.to_string(), currency: unit_price.currency(), name }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ProductIn {
    /// A decimal text such as `"15.00"`, or whole units as an integer. A float is refused: money is exact.
    #[schema(schema_with = describe::price)]
    unit_price: ExactDecimal,
    /// Without it, the service's default currency.
    #[schema(schema_with = describe::currency)]
    currency: Option<Currency>,
    #[schema(schema_with = describe::product_name)]
    name: Option<String>,
}

/// The text of a decimal number from a string or integer token (rules R15).
#[derive(Debug)]
struct ExactDecimal(String);

impl<'de> Deserialize<'de> for ExactDecimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Exact;
        impl Visitor<'_> for Exact {
            type Value = ExactDecimal;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal text such as \"15.00\", or an integer")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ExactDecimal, E> {
                Ok(ExactDecimal(text.to_owned()))
            }
            fn visit_u64<E: serde::de::Error>(self, whole: u64) -> Result<ExactDecimal, E> {
                Ok(ExactDecimal(whole.to_string()))
            }
            fn visit_i64<E: serde::de::Error>(self, whole: i64) -> Result<ExactDecimal, E> {
                Ok(ExactDecimal(whole.to_string()))
            }
        }
        deserializer.deserialize_any(Exact).map_err(D::Error::custom)
    }
}

fn unknown(sku: &Sku) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown-product",
        "No such product",
        format!("the catalogue has no product `{sku}`"),
    )
}

fn invalid(pointer: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-product", "Invalid product", detail.clone())
        .outcome(Outcome::NotExecuted)
        .error(pointer, "invalid-product", detail)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct PageQuery {
    /// The last SKU of the page before.
    #[param(schema_with = describe::sku)]
    after: Option<Sku>,
    /// How many; 50 unless given.
    #[param(schema_with = describe::page_products)]
    limit: Option<u32>,
}

/// Names a product.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path, which is read as a SKU alone")]
struct ProductPath {
    #[param(schema_with = describe::sku)]
    sku: Sku,
}

/// List the products by SKU.
#[utoipa::path(
    get, path = "/products", operation_id = "list_products", tag = "products", params(PageQuery),
    responses((status = 200, description = "A page", body = [ProductBody], headers(("Link"))))
)]
async fn list(
    State(api): State<Arc<Api>>,
    _admitted: AdmittedRead,
    Query(page): Query<PageQuery>,
) -> Result<Response, Problem> {
    let limit = page_limit(page.limit, PAGE_PRODUCTS, PAGE_PRODUCTS_MAX)?;
    let mut products = api.catalog.list(page.after, limit + 1).await.map_err(|error| failed_look_up(&error))?;
    let more = products.len() > limit as usize;
    products.truncate(limit as usize);
    let next = products.last().filter(|_| more).map(|last| next_link(&last.sku, limit));
    let body: Vec<ProductBody> = products.into_iter().map(ProductBody::from).collect();
    let mut response = axum::Json(body).into_response();
    if let Some(link) = next.and_then(|link| HeaderValue::from_str(&link).ok()) {
        response.headers_mut().insert(LINK, link);
    }
    Ok(response)
}

fn next_link(last: &Sku, limit: u32) -> String {
    let after: String = form_urlencoded::byte_serialize(last.as_str().as_bytes()).collect();
    format!("</products?after={after}&limit={limit}>; rel=\"next\"")
}

/// Look a product up.
#[utoipa::path(
    get, path = "/products/{sku}", operation_id = "get_product", tag = "products", params(ProductPath),
    responses((status = 200, description = "The product", body = ProductBody))
)]
async fn get(State(api): State<Arc<Api>>, _admitted: AdmittedRead, Path(sku): Path<Sku>) -> Result<Response, Problem> {
    match api.catalog.product(&sku).await.map_err(|error| failed_look_up(&error))? {
        Some(product) => Ok(axum::Json(ProductBody::from(product)).into_response()),
        None => Err(unknown(&sku)),
    }
}

/// Set a product's price. Orders that are placed already keep theirs.
#[utoipa::path(
    put, path = "/products/{sku}", operation_id = "put_product", tag = "products", params(ProductPath),
    request_body = ProductIn,
    responses(
        (status = 200, description = "Changed", body = ProductBody),
        (status = 201, description = "Added", body = ProductBody),
    )
)]
async fn put(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    Path(sku): Path<Sku>,
    Json(product): Json<ProductIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let currency = product.currency.unwrap_or_else(|| api.catalog.default_currency());
    let unit_price =
        Money::parse(&product.unit_price.0, currency).map_err(|error| invalid("/unit_price", error.to_string()))?;
    if product.name.as_ref().is_some_and(|name| name.chars().count() > NAME_CHARS_MAX) {
        return Err(invalid("/name", format!("a name has at most {NAME_CHARS_MAX} characters")));
    }
    let product = Product { sku, unit_price, name: product.name };
    let created = api.catalog.put(product.clone()).await.map_err(|error| failed_change(&error))?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, axum::Json(ProductBody::from(product))).into_response())
}
