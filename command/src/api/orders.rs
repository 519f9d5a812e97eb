//! The commands on orders.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chassis::http::extract::{OptionalRawJson, Path, RawJson};
use chassis::http::problem::Problem;
use domain::order::{DraftLine, OrderCommand};
use domain::{CustomerId, OrderId, Sku};
use serde::Deserialize;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::answer::{OrderBody, failed_look_up, respond};
use super::request::Context;
use super::{Api, Entrance, describe};

pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(change_items))
        .routes(routes!(pay))
        .routes(routes!(ship))
        .routes(routes!(deliver))
        .routes(routes!(cancel))
}

/// What is ordered. Prices come from the catalogue, never from here.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemIn {
    #[schema(schema_with = describe::sku)]
    sku: Sku,
    #[schema(schema_with = describe::quantity)]
    quantity: u32,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateIn {
    #[schema(schema_with = describe::customer_id)]
    customer_id: CustomerId,
    /// Each SKU once.
    #[schema(schema_with = describe::items)]
    items: Vec<ItemIn>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeItemsIn {
    /// Each SKU once.
    #[schema(schema_with = describe::items)]
    items: Vec<ItemIn>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PayIn {
    /// The payment's name at whoever took it.
    payment_reference: Option<Text>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ShipIn {
    carrier: Option<Text>,
    tracking_number: Option<Text>,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DeliverIn {}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CancelIn {
    /// Why, for the audit trail.
    reason: Text,
}

/// The most characters of a [`Text`].
pub(super) const TEXT_CHARS_MAX: usize = 500;

/// A short text that is not blank.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Text(String);

impl PartialSchema for Text {
    fn schema() -> RefOr<Schema> {
        describe::text().into()
    }
}

impl ToSchema for Text {}

impl TryFrom<String> for Text {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.trim().is_empty() || text.chars().count() > TEXT_CHARS_MAX {
            return Err(format!("a text has from 1 to {TEXT_CHARS_MAX} characters"));
        }
        Ok(Self(text))
    }
}

async fn priced(api: &Api, items: Vec<ItemIn>) -> Result<Vec<DraftLine>, Problem> {
    let skus = items.iter().map(|item| item.sku.clone()).collect();
    let prices = api.catalog.prices(skus).await.map_err(|error| failed_look_up(&error))?;
    Ok(items
        .into_iter()
        .map(|ItemIn { sku, quantity }| {
            let unit_price = prices.get(&sku).copied().flatten();
            DraftLine { sku, quantity, unit_price }
        })
        .collect())
}

/// Place an order.
///
/// Without a body key the same request twice places two orders; with an `Idempotency-Key` it places one.
#[utoipa::path(
    post, path = "/orders", operation_id = "create_order", tag = "orders", request_body = CreateIn, params(Context),
    responses(
        (status = 201, description = "Placed; `Location` and `ETag` name it and its version", body = OrderBody<'_>,
            headers(("ETag"), ("Location"), ("Idempotency-Replayed"))),
    )
)]
async fn create(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    context: Context,
    RawJson { value, bytes }: RawJson<CreateIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let CreateIn { customer_id, items } = value;
    let lines = priced(&api, items).await?;
    let command = OrderCommand::Create { customer_id, lines, at: context.now };
    let request = context.into_request(OrderId(Uuid::now_v7()), command, &bytes);
    Ok(respond(api.executor.execute(request).await))
}

/// Replace the items of an order that is not paid. The same items again change nothing.
#[utoipa::path(
    put, path = "/orders/{order_id}/items", operation_id = "change_items", tag = "orders", request_body = ChangeItemsIn,
    params(("order_id" = Uuid, Path), Context),
    responses((status = 200, description = "Changed", body = OrderBody<'_>, headers(("ETag"), ("Idempotency-Replayed"))))
)]
async fn change_items(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    Path(order_id): Path<OrderId>,
    context: Context,
    RawJson { value, bytes }: RawJson<ChangeItemsIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let lines = priced(&api, value.items).await?;
    let request = context.into_request(order_id, OrderCommand::ChangeItems { lines }, &bytes);
    Ok(respond(api.executor.execute(request).await))
}

/// Take note of the payment of the whole total. Needs no body.
#[utoipa::path(
    post, path = "/orders/{order_id}/pay", operation_id = "pay_order", tag = "orders", request_body = Option<PayIn>,
    params(("order_id" = Uuid, Path), Context),
    responses((status = 200, description = "Paid", body = OrderBody<'_>, headers(("ETag"), ("Idempotency-Replayed"))))
)]
async fn pay(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    Path(order_id): Path<OrderId>,
    context: Context,
    OptionalRawJson { value, bytes }: OptionalRawJson<PayIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let payment_reference = value.unwrap_or_default().payment_reference.map(|text| text.0);
    let request = context.into_request(order_id, OrderCommand::Pay { payment_reference }, &bytes);
    Ok(respond(api.executor.execute(request).await))
}

/// Hand a paid order to a carrier. Needs no body.
#[utoipa::path(
    post, path = "/orders/{order_id}/ship", operation_id = "ship_order", tag = "orders", request_body = Option<ShipIn>,
    params(("order_id" = Uuid, Path), Context),
    responses((status = 200, description = "Shipped", body = OrderBody<'_>, headers(("ETag"), ("Idempotency-Replayed"))))
)]
async fn ship(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    Path(order_id): Path<OrderId>,
    context: Context,
    OptionalRawJson { value, bytes }: OptionalRawJson<ShipIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let ShipIn { carrier, tracking_number } = value.unwrap_or_default();
    let command =
        OrderCommand::Ship { carrier: carrier.map(|text| text.0), tracking_number: tracking_number.map(|text| text.0) };
    let request = context.into_request(order_id, command, &bytes);
    Ok(respond(api.executor.execute(request).await))
}

/// Take note of the arrival. Needs no body.
#[utoipa::path(
    post, path = "/orders/{order_id}/deliver", operation_id = "deliver_order", tag = "orders", request_body = Option<DeliverIn>,
    params(("order_id" = Uuid, Path), Context),
    responses((status = 200, description = "Delivered", body = OrderBody<'_>, headers(("ETag"), ("Idempotency-Replayed"))))
)]
async fn deliver(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    Path(order_id): Path<OrderId>,
    context: Context,
    OptionalRawJson { value: _nothing, bytes }: OptionalRawJson<DeliverIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let request = context.into_request(order_id, OrderCommand::Deliver, &bytes);
    Ok(respond(api.executor.execute(request).await))
}

/// Give an order up before it ships. A paid one is refunded.
#[utoipa::path(
    post, path = "/orders/{order_id}/cancel", operation_id = "cancel_order", tag = "orders", request_body = CancelIn,
    params(("order_id" = Uuid, Path), Context),
    responses((status = 200, description = "Cancelled", body = OrderBody<'_>, headers(("ETag"), ("Idempotency-Replayed"))))
)]
async fn cancel(
    State(api): State<Arc<Api>>,
    entrance: Entrance,
    Path(order_id): Path<OrderId>,
    context: Context,
    RawJson { value, bytes }: RawJson<CancelIn>,
) -> Result<Response, Problem> {
    let _permit = entrance.enter()?;
    let request = context.into_request(order_id, OrderCommand::Cancel { reason: value.reason.0 }, &bytes);
    Ok(respond(api.executor.execute(request).await))
}
