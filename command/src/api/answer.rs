//! What is sent: an order after a command, or a problem. Status codes live here and in the handlers, nowhere deeper.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::http::problem::{CONTENT_TYPE_PROBLEM, Outcome as Executed, Problem};
use chassis::telemetry::ErrorChain;
use domain::order::{Basket, Order, Rejection};
use domain::{CustomerId, OrderId, Sku, Version};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::executor::{Answer, Failure, Outcome};
use crate::idempotency::Reply;

/// An order as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub(super) struct OrderBody<'o> {
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    /// `CREATED`, `PAID`, `SHIPPED`, `DELIVERED` or `CANCELLED`.
    status: &'static str,
    /// How many events the order has: `min_version` of a read of it that must see this command, and with the id
    /// before it, `after=ORDER_ID:VERSION`, the same for any list.
    #[schema(value_type = u32)]
    version: Version,
    #[schema(value_type = String)]
    customer_id: &'o CustomerId,
    items: Vec<ItemBody<'o>>,
    /// Exact, with all digits of the currency.
    #[schema(value_type = f64)]
    total: Box<RawValue>,
    #[schema(value_type = String, example = "USD")]
    currency: domain::Currency,
}

/// One line of an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderItem)]
pub(super) struct ItemBody<'o> {
    #[schema(value_type = String)]
    sku: &'o Sku,
    quantity: u32,
    /// Missing when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>)]
    unit_price: Option<Box<RawValue>>,
}

/// The answer to an outcome of the domain: what is sent, and what is stored for the request's key.
pub fn render(outcome: &Outcome) -> Reply {
    match outcome {
        Outcome::Accepted { order_id, version, state, created } => accepted(*order_id, *version, state, *created),
        Outcome::Rejected(rejection) => problem_reply(&rejected(rejection)),
        Outcome::VersionMismatch { expected, current } => problem_reply(
            &Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "version-mismatch",
                "The order has changed",
                format!("If-Match names version {expected}, the order is at version {current}"),
            )
            .outcome(Executed::NotExecuted)
            .with("current_version", current.0),
        ),
    }
}

fn accepted(order_id: OrderId, version: Version, state: &Order, created: bool) -> Reply {
    let body = match (state.basket(), state.status()) {
        (Some(Basket { customer_id, lines, total }), Some(status)) => serde_json::to_string(&OrderBody {
            order_id,
            status: status.as_str(),
            version,
            customer_id,
            items: lines
                .iter()
                .map(|line| ItemBody {
                    sku: &line.sku,
                    quantity: line.quantity,
                    unit_price: line.unit_price.map(domain::Money::to_json_number),
                })
                .collect(),
            total: total.to_json_number(),
            currency: total.currency(),
        }),
        // No command that is accepted leaves an order absent.
        _ => Ok("{}".to_owned()),
    };
    Reply {
        status: if created { StatusCode::CREATED.as_u16() } else { StatusCode::OK.as_u16() },
        etag: Some(format!("\"{version}\"")),
        location: created.then(|| format!("/orders/{order_id}")),
        body: body.unwrap_or_default(),
    }
}

fn problem_reply(problem: &Problem) -> Reply {
    Reply {
        status: problem.status().as_u16(),
        etag: None,
        location: None,
        body: String::from_utf8(problem.body()).unwrap_or_default(),
    }
}

/// 404 for what does not exist, 422 for what cannot be right, 409 for what does not fit the order's state.
fn rejected(rejection: &Rejection) -> Problem {
    let (status, title) = match rejection {
        Rejection::UnknownOrder => (StatusCode::NOT_FOUND, "No such order"),
        Rejection::EmptyOrder
        | Rejection::TooManyItems { .. }
        | Rejection::DuplicateSku { .. }
        | Rejection::InvalidQuantity { .. }
        | Rejection::UnknownSku { .. }
        | Rejection::MixedCurrencies
        | Rejection::AmountOutOfRange => (StatusCode::UNPROCESSABLE_ENTITY, "The order cannot be accepted like this"),
        Rejection::OrderAlreadyExists
        | Rejection::ItemsFrozen
        | Rejection::AlreadyPaid
        | Rejection::NotPaid
        | Rejection::AlreadyShipped
        | Rejection::NotShipped
        | Rejection::AlreadyDelivered
        | Rejection::AlreadyCancelled
        | Rejection::NotCancellable => (StatusCode::CONFLICT, "The order's state does not allow this"),
    };
    let problem = Problem::new(status, rejection.code(), title, rejection.to_string()).outcome(Executed::NotExecuted);
    match rejection.pointer() {
        Some(pointer) => problem.error(pointer, rejection.code(), rejection.to_string()),
        None => problem,
    }
}

/// The response to what the executor answered.
pub(super) fn respond(answer: Result<Answer, Failure>) -> Response {
    match answer {
        Ok(Answer { reply, replayed }) => {
            let mut response = from_reply(reply);
            if replayed {
                response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
            }
            response
        }
        Err(failure) => failed(failure).into_response(),
    }
}

fn from_reply(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let content_type = if reply.status < 400 { "application/json" } else { CONTENT_TYPE_PROBLEM };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    for (name, value) in [(ETAG, reply.etag), (LOCATION, reply.location)] {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

fn failed(failure: Failure) -> Problem {
    let problem = |status, code, title, detail: &'static str| Problem::new(status, code, title, detail);
    let unavailable = |code, title, detail| {
        problem(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).retry_after(jittered_retry_s())
    };
    let (problem, executed) = match failure {
        Failure::Overloaded => (
            unavailable("overloaded", "Too much is asked at once", "the command was not executed; send it again later"),
            Executed::NotExecuted,
        ),
        Failure::Stopping => (
            unavailable("overloaded", "The service is stopping", "the command was not executed; send it again"),
            Executed::NotExecuted,
        ),
        Failure::KeyBusy => (
            unavailable(
                "idempotency-key-busy",
                "A request with this key is in progress",
                "this one was not executed; repeat it with the same key to get the other's answer",
            ),
            Executed::NotExecuted,
        ),
        Failure::KeyReused => (
            problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency-key-reused",
                "The key belongs to another request",
                "this Idempotency-Key was used with another method, path or body; a new request needs a new key",
            ),
            Executed::NotExecuted,
        ),
        Failure::TimedOut => (
            unavailable(
                "command-timeout",
                "The command could not be executed in time",
                "it was not executed; send it again later",
            ),
            Executed::NotExecuted,
        ),
        Failure::TooLarge => (
            problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "event-too-large",
                "The event would be too large",
                "the order's event would be larger than may be published; order less at once",
            ),
            Executed::NotExecuted,
        ),
        Failure::Database => (
            problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Internal error",
                "the database refused the transaction; nothing was executed, and the log tells why",
            ),
            Executed::NotExecuted,
        ),
        Failure::OutcomeUnknown => (
            unavailable(
                "outcome-unknown",
                "The outcome is unknown",
                "it may or may not have been executed; repeat it with the same Idempotency-Key to find out",
            ),
            Executed::Unknown,
        ),
    };
    problem.outcome(executed)
}

/// The database cannot be asked: nothing was executed.
pub(super) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(error = %ErrorChain(error), "a look-up failed");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not-ready",
        "The database cannot be reached",
        "nothing was executed; send the request again",
    )
    .retry_after(jittered_retry_s())
    .outcome(Executed::NotExecuted)
}

/// A query parameter that is known and has no meaning.
pub(super) fn invalid_query(parameter: &'static str, detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "invalid-query", "Invalid query", detail.clone()).error(
        parameter,
        "invalid-query",
        detail,
    )
}

/// How many of a list a page has: what is asked for, within bounds.
pub(super) fn page_limit(asked: Option<u32>, without_asking: u32, most: u32) -> Result<u32, Problem> {
    let limit = asked.unwrap_or(without_asking);
    if (1..=most).contains(&limit) {
        return Ok(limit);
    }
    Err(invalid_query("limit", format!("`limit` is from 1 to {most}")))
}

/// From 1 to 3 seconds, so that those who were refused together do not return together.
fn jittered_retry_s() -> u64 {
    fastrand::u64(1..=3)
}
