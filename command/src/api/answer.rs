//! What is sent: an order after a command, or a problem. Status codes live here and in the handlers, nowhere deeper.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use chassis::http::problem::{CONTENT_TYPE_PROBLEM, Outcome as Executed, Problem};
use chassis::postgres::{is_data_exception, is_transient};
use chassis::telemetry::ErrorChain;
use domain::order::{Basket, Order, Rejection};
use domain::{CustomerId, OrderId, Sku, Version};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::describe;
use crate::catalog;
use crate::executor::{Answer, Failure, Outcome, Unrenderable};
use crate::idempotency::Reply;

/// An order as a command leaves it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Order)]
pub(super) struct OrderBody<'o> {
    #[schema(value_type = uuid::Uuid)]
    order_id: OrderId,
    #[schema(schema_with = describe::status)]
    status: &'static str,
    /// How many events the order has: `min_version` of a read of it that must see this command, and with the id
    /// before it, `after=ORDER_ID:VERSION`, the same for any list.
    #[schema(value_type = u32)]
    version: Version,
    #[schema(schema_with = describe::customer_id)]
    customer_id: &'o CustomerId,
    items: Vec<ItemBody<'o>>,
    /// Exact, with all digits of the currency.
    #[schema(schema_with = describe::amount)]
    total: Box<RawValue>,
    #[schema(schema_with = describe::currency)]
    currency: domain::Currency,
}

/// One line of an order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OrderItem)]
pub(super) struct ItemBody<'o> {
    #[schema(schema_with = describe::sku)]
    sku: &'o Sku,
    #[schema(schema_with = describe::quantity)]
    quantity: u32,
    /// Missing when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(schema_with = describe::amount)]
    unit_price: Option<Box<RawValue>>,
}

/// The answer to an outcome of the domain: what is sent, and what is stored for the request's key.
///
/// # Errors
///
/// An accepted command that leaves its order absent, or a value that is no JSON. The executor then writes nothing.
pub fn render(outcome: &Outcome) -> Result<Reply, Unrenderable> {
    match outcome {
        Outcome::Accepted { order_id, version, state, created } => accepted(*order_id, *version, state, *created),
        Outcome::Rejected(rejection) => problem_reply(&rejected(rejection)),
        Outcome::VersionMismatch { expected, current } => problem_reply(
            &Problem::new(
                StatusCode::PRECONDITION_FAILED,
                "version-mismatch",
                "The order has changed",
                format!("If-Match names version {}, the order is at version {current}", one_of(expected)),
            )
            .outcome(Executed::NotExecuted)
            .with("current_version", current.0),
        ),
    }
}

/// `1`, `1 or 2`.
fn one_of(versions: &[Version]) -> String {
    versions.iter().map(Version::to_string).collect::<Vec<_>>().join(" or ")
}

fn accepted(order_id: OrderId, version: Version, state: &Order, created: bool) -> Result<Reply, Unrenderable> {
    let (Some(Basket { customer_id, lines, total }), Some(status)) = (state.basket(), state.status()) else {
        return Err(Unrenderable::because("an accepted command left its order absent"));
    };
    let body = serde_json::to_string(&OrderBody {
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
    });
    Ok(Reply {
        status: if created { StatusCode::CREATED.as_u16() } else { StatusCode::OK.as_u16() },
        etag: Some(format!("\"{version}\"")),
        location: created.then(|| format!("/orders/{order_id}")),
        body: body.map_err(Unrenderable::because)?,
    })
}

fn problem_reply(problem: &Problem) -> Result<Reply, Unrenderable> {
    let body = problem.json().map_err(Unrenderable::because)?;
    Ok(Reply { status: problem.status().as_u16(), etag: None, location: None, body })
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
            let mut response = match from_reply(reply) {
                Ok(response) => response,
                // Rendering made the answer of valid parts, so somebody else has changed a stored one.
                Err(error) => return Problem::internal(&error).into_response(),
            };
            if replayed {
                response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
            }
            response
        }
        Err(failure) => failed(failure).into_response(),
    }
}

fn from_reply(reply: Reply) -> Result<Response, axum::http::Error> {
    let content_type = if reply.status < 400 { "application/json" } else { CONTENT_TYPE_PROBLEM };
    let mut response = Response::builder().status(reply.status).header(CONTENT_TYPE, content_type);
    for (name, value) in [(ETAG, reply.etag), (LOCATION, reply.location)] {
        if let Some(value) = value {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(reply.body))
}

fn failed(failure: Failure) -> Problem {
    let unavailable = |code, title, detail: &'static str| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, detail).retry_after(jittered_retry_s())
    };
    let refused =
        |code, title, detail: &'static str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, title, detail);
    let internal =
        |detail: &'static str| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail);
    let problem = match failure {
        Failure::Overloaded => {
            unavailable("overloaded", "Too much is asked at once", "the command was not executed; send it again later")
        }
        Failure::Stopping => {
            unavailable("overloaded", "The service is stopping", "the command was not executed; send it again")
        }
        Failure::KeyBusy => unavailable(
            "idempotency-key-busy",
            "A request with this key is in progress",
            "this one was not executed; repeat it with the same key to get the other's answer",
        ),
        Failure::KeyReused => refused(
            "idempotency-key-reused",
            "The key belongs to another request",
            "this Idempotency-Key was used with another method, path, If-Match or body; a new request needs a new key",
        ),
        Failure::TimedOut => unavailable(
            "command-timeout",
            "The command could not be executed in time",
            "it was not executed; send it again later",
        ),
        Failure::TooLarge => refused(
            "event-too-large",
            "The event would be too large",
            "the order's event would be larger than may be published; order less at once",
        ),
        Failure::Unstorable => unstorable(),
        Failure::Database => {
            internal("the database refused the transaction; nothing was executed, and the log tells why")
        }
        Failure::Unrenderable => {
            internal("the command has no answer that could be sent; nothing was executed, and the log tells why")
        }
        Failure::OutcomeUnknown => unavailable(
            "outcome-unknown",
            "The outcome is unknown",
            "it may or may not have been executed; repeat it with the same Idempotency-Key to find out",
        ),
    };
    problem.outcome(if failure == Failure::OutcomeUnknown { Executed::Unknown } else { Executed::NotExecuted })
}

/// A value that the database cannot hold: the request is at fault, and stays so.
fn unstorable() -> Problem {
    Problem::new(
        StatusCode::UNPROCESSABLE_ENTITY,
        "unstorable-value",
        "A value cannot be stored",
        "the database cannot hold a character or a number of this request",
    )
}

/// The catalogue could not be read. Nothing was executed.
pub(super) fn failed_look_up(error: &catalog::Error) -> Problem {
    match error {
        catalog::Error::Database(error) => failed_question(error),
        catalog::Error::Overloaded => overloaded_catalogue(),
        catalog::Error::Corrupt { .. } | catalog::Error::CutOff => {
            Problem::internal(error).outcome(Executed::NotExecuted)
        }
    }
}

/// The catalogue could not be changed, or it is not known whether it was.
pub(super) fn failed_change(error: &catalog::Error) -> Problem {
    match error {
        catalog::Error::Database(error) if may_have_happened(error) => outcome_unknown(error),
        catalog::Error::CutOff => outcome_unknown(error),
        catalog::Error::Database(_) | catalog::Error::Overloaded | catalog::Error::Corrupt { .. } => {
            failed_look_up(error)
        }
    }
}

/// Whether a statement that failed so may be committed all the same: its answer was lost, or the server ended the session.
fn may_have_happened(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => false,
        sqlx::Error::Database(answer) => {
            answer.code().is_none_or(|code| code.starts_with("57P") || code.starts_with("08"))
        }
        _ => true,
    }
}

fn outcome_unknown(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(error = %ErrorChain(error), "it is not known whether a product was changed");
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "outcome-unknown",
        "The outcome is unknown",
        "the product may or may not have been changed; the same request can be sent again",
    )
    .retry_after(jittered_retry_s())
    .outcome(Executed::Unknown)
}

fn overloaded_catalogue() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "overloaded",
        "Too much is asked at once",
        "more is asked of the catalogue than the database answers in time; nothing was executed",
    )
    .retry_after(jittered_retry_s())
    .outcome(Executed::NotExecuted)
}

/// The database did not answer a question. Nothing was executed. A value that it refuses is the request's fault, a statement that it
/// does not understand is a bug, and everything else passes.
pub(super) fn failed_question(error: &sqlx::Error) -> Problem {
    if is_data_exception(error) {
        return unstorable().outcome(Executed::NotExecuted);
    }
    let passes = match error {
        sqlx::Error::Database(answer) => answer.code().is_none_or(|code| !code.starts_with("42")),
        sqlx::Error::PoolClosed => true,
        _ => is_transient(error),
    };
    if !passes {
        return Problem::internal(error).outcome(Executed::NotExecuted);
    }
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
