//! What the API's description says beside the handlers' annotations: each route's problems, and the domain's limits.

use chassis::http::describe::{Known, complete, headers, schemas};
use domain::ids::{CUSTOMER_ID_CHARS_MAX, SKU_CHARS_MAX};
use domain::order::Status;
use domain::order::decide::{ITEMS_MAX, QUANTITY_MAX};
use utoipa::openapi::OpenApi;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, OneOfBuilder, Ref, Schema, Type};
use utoipa::{IntoParams, ToSchema};

use super::orders::{ItemIn, TEXT_CHARS_MAX};
use super::products::{NAME_CHARS_MAX, PAGE_PRODUCTS_MAX};
use super::request::{ACTOR_CHARS_MAX, Context};
use crate::idempotency::KEY_CHARS_MAX;

/// The database cannot be asked.
const DATABASE: &[Known] = &[(503, "not-ready")];
/// Too much is asked at once.
const ADMISSION: &[Known] = &[(503, "overloaded")];
/// What any question to the catalogue may meet.
const CATALOGUE: &[Known] = &[(503, "overloaded"), (503, "not-ready"), (422, "unstorable-value")];
/// What any command on an order may meet.
const COMMAND: &[Known] = &[
    (400, "invalid-idempotency-key"),
    (400, "invalid-if-match"),
    (422, "idempotency-key-reused"),
    (422, "unstorable-value"),
    (503, "overloaded"),
    (503, "command-timeout"),
    (503, "idempotency-key-busy"),
    (503, "outcome-unknown"),
];
/// Items that make no order.
const ITEMS: &[Known] = &[
    (422, "empty-order"),
    (422, "too-many-items"),
    (422, "duplicate-sku"),
    (422, "invalid-quantity"),
    (422, "unknown-sku"),
    (422, "mixed-currencies"),
    (422, "amount-out-of-range"),
    (422, "event-too-large"),
];
/// An order that must exist, at a version that the caller accepts, and must not be cancelled.
const EXISTING: &[Known] = &[(404, "unknown-order"), (409, "already-cancelled"), (412, "version-mismatch")];

/// The problems of an operation beside those that follow from its parameters and its body.
fn problems(operation: &str) -> Vec<Known> {
    match operation {
        "create_order" => [COMMAND, ITEMS, DATABASE].concat(),
        "change_items" => [COMMAND, ITEMS, DATABASE, EXISTING, &[(409, "items-frozen")]].concat(),
        "pay_order" => [COMMAND, EXISTING, &[(409, "already-paid")]].concat(),
        "ship_order" => [COMMAND, EXISTING, &[(409, "not-paid"), (409, "already-shipped")]].concat(),
        "deliver_order" => [COMMAND, EXISTING, &[(409, "not-shipped"), (409, "already-delivered")]].concat(),
        "cancel_order" => [COMMAND, EXISTING, &[(409, "not-cancellable")]].concat(),
        "find_order" => vec![(404, "read-elsewhere")],
        "get_product" => [CATALOGUE, &[(404, "unknown-product")]].concat(),
        "put_product" => [CATALOGUE, &[(422, "invalid-product"), (503, "outcome-unknown")]].concat(),
        "list_products" => CATALOGUE.to_vec(),
        "read_log" => [ADMISSION, DATABASE].concat(),
        _ => Vec::new(),
    }
}

/// The document with each route's problems and headers.
pub(super) fn completed(openapi: OpenApi) -> OpenApi {
    complete(openapi, problems)
}

impl IntoParams for Context {
    fn into_params(_in: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let key = schemas::text(KEY_CHARS_MAX).pattern(Some("^[!#-~]([ !#-~]*[!#-~])?$"));
        let tag = r#"(W/)?"(0|[1-9][0-9]{0,9})""#;
        let tags = schemas::anything().pattern(Some(format!(r"^(\*|{tag}( *, *{tag})*)$"))).examples(["\"3\""]);
        vec![
            headers::optional(
                "Idempotency-Key",
                "The client's name for this request: repeated, it is executed once",
                key,
            ),
            headers::optional("If-Match", "The versions that the caller accepts, as their `ETag`s; `*` is any", tags),
            headers::actor(ACTOR_CHARS_MAX),
            headers::correlation_id(ACTOR_CHARS_MAX),
        ]
    }
}

pub(super) fn sku() -> Object {
    schemas::name(SKU_CHARS_MAX).examples(["prod-1"]).build()
}

pub(super) fn customer_id() -> Object {
    schemas::name(CUSTOMER_ID_CHARS_MAX).examples(["customer-1"]).build()
}

pub(super) fn quantity() -> Object {
    schemas::whole(1, QUANTITY_MAX).examples([2]).build()
}

pub(super) fn items() -> Array {
    let items = ArrayBuilder::new().items(Ref::from_schema_name(ItemIn::name()));
    items.description(Some("Each SKU once")).min_items(Some(1)).max_items(Some(ITEMS_MAX)).build()
}

pub(super) fn status() -> Object {
    schemas::one_of(Status::ALL.map(Status::as_str)).build()
}

pub(super) fn text() -> Object {
    schemas::text(TEXT_CHARS_MAX).build()
}

pub(super) fn currency() -> Object {
    schemas::currency().build()
}

pub(super) fn amount() -> Object {
    schemas::amount().build()
}

pub(super) fn decimal() -> Object {
    schemas::decimal().build()
}

/// What may be given as a price: a text, or whole units.
pub(super) fn price() -> Schema {
    let whole = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    let description = "A decimal text, or whole units as an integer. A fraction as a number is refused: money is exact";
    Schema::OneOf(OneOfBuilder::new().item(schemas::decimal()).item(whole).description(Some(description)).build())
}

pub(super) fn product_name() -> Object {
    schemas::anything().max_length(Some(NAME_CHARS_MAX)).build()
}

pub(super) fn page_products() -> Object {
    schemas::whole(1, PAGE_PRODUCTS_MAX).build()
}
