//! One command over HTTP.

use reqwest::{Client, Response};
use serde_json::{Value, json};

use super::book::Kind;
use crate::config::LoadArgs;
use crate::error::Error;

/// So many customers share the orders.
const CUSTOMERS: u64 = 1_000;

/// Where the load goes.
#[derive(Debug, Clone)]
pub(super) struct Target {
    client: Client,
    command_url: String,
    query_url: String,
}

/// What an accepted command says.
#[derive(Debug, Clone)]
pub(super) struct Accepted {
    /// The order.
    pub(super) order_id: String,
    /// Its version after the command.
    pub(super) version: u64,
}

impl Target {
    pub(super) fn new(client: Client, args: &LoadArgs) -> Self {
        let trimmed = |url: &str| url.trim_end_matches('/').to_owned();
        Self { client, command_url: trimmed(&args.command_url), query_url: trimmed(&args.query_url) }
    }

    /// Makes sure that somebody is there, so that a mistyped address is one line and not a report of errors.
    ///
    /// # Errors
    /// When one of the two does not answer.
    pub(super) async fn check(&self) -> Result<(), Error> {
        for url in [&self.command_url, &self.query_url] {
            if let Err(cause) = self.client.get(format!("{url}/health/live")).send().await {
                let cause = describe(&cause);
                return Err(Error::Usage(format!("nothing answers at {url} ({cause}): start it with `make run`")));
            }
        }
        Ok(())
    }

    /// Sends one command.
    ///
    /// # Errors
    /// A short cause that many failures can share: the status and the problem's code, or what the
    /// connection did.
    pub(super) async fn send(&self, kind: Kind, order: Option<&str>, sequence: u64) -> Result<Accepted, String> {
        let base = &self.command_url;
        let request = match (kind, order) {
            (Kind::Place, _) | (_, None) => self.client.post(format!("{base}/orders")).json(&new_order(sequence)),
            (Kind::Cancel, Some(id)) => {
                self.client.post(format!("{base}/orders/{id}/cancel")).json(&json!({"reason": "changed my mind"}))
            }
            (Kind::Pay | Kind::Ship, Some(id)) => self.client.post(format!("{base}/orders/{id}/{}", kind.name())),
        };
        let response = request.send().await.map_err(|error| describe(&error))?;
        accepted(response).await
    }

    /// The version that the query service shows of this order; none when it does not know it yet.
    ///
    /// # Errors
    /// As for `send`.
    pub(super) async fn visible_version(&self, order_id: &str) -> Result<Option<u64>, String> {
        let url = format!("{}/orders/{order_id}", self.query_url);
        let response = self.client.get(url).send().await.map_err(|error| describe(&error))?;
        if response.status().as_u16() == 404 {
            return Ok(None);
        }
        accepted(response).await.map(|order| Some(order.version))
    }
}

fn new_order(sequence: u64) -> Value {
    json!({
        "customer_id": format!("customer-{}", sequence % CUSTOMERS),
        "items": [{"sku": "prod-1", "quantity": 1 + sequence % 3}, {"sku": "prod-2", "quantity": 1}],
    })
}

async fn accepted(response: Response) -> Result<Accepted, String> {
    let status = response.status();
    let body = response.bytes().await.map_err(|error| describe(&error))?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        return Err(format!("{} {}", status.as_u16(), problem_code(&body)));
    }
    match (body["order_id"].as_str(), body["version"].as_u64()) {
        (Some(order_id), Some(version)) => Ok(Accepted { order_id: order_id.to_owned(), version }),
        _ => Err(format!("{} without order_id and version", status.as_u16())),
    }
}

/// The stable code of a problem document: its `code`, or the end of its `type`.
fn problem_code(problem: &Value) -> String {
    let kind = problem["type"].as_str().and_then(|kind| kind.rsplit('/').next());
    problem["code"].as_str().or(kind).unwrap_or("(no problem document)").to_owned()
}

fn describe(error: &reqwest::Error) -> String {
    let cause = if error.is_timeout() {
        "timed out"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "connection broken"
    };
    cause.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_their_code() {
        assert_eq!(problem_code(&json!({"code": "order-already-paid"})), "order-already-paid");
        assert_eq!(problem_code(&json!({"type": "/errors/too-busy"})), "too-busy");
        assert_eq!(problem_code(&Value::Null), "(no problem document)");
    }
}
