//! Customers, and what they do: the command service's API in the words of its users.

use std::time::Duration;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::World;

/// What is ordered: SKUs and quantities.
pub(crate) type Basket<'a> = &'a [(&'a str, u32)];

/// Two of the one and one of the other: 42.50.
pub(crate) const TWO_AND_ONE: Basket<'static> = &[("prod-1", 2), ("prod-2", 1)];

/// How long a client waits for one answer.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// An answer with everything that a client can look at.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The very bytes, as text.
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn to(request: reqwest::RequestBuilder) -> Result<Self, reqwest::Error> {
        let response = request.timeout(ANSWER_WITHIN).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Self { status, headers, body: response.text().await? })
    }

    /// The answer itself, if that is its status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    /// A header, empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// A problem's stable code: the answer must be one in every respect.
    #[track_caller]
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["code"].as_str().unwrap_or_else(|| panic!("no code: {problem}")).to_owned()
    }

    /// The order that it is about.
    #[track_caller]
    pub(crate) fn order(&self) -> Order {
        let order = self.json();
        let version = order["version"].as_u64().and_then(|version| u32::try_from(version).ok());
        Order { id: order["order_id"].as_str().unwrap().parse().unwrap(), version: version.unwrap() }
    }
}

/// An order, as far as its customer must know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) version: u32,
}

/// Somebody who orders.
#[derive(Debug, Clone)]
pub(crate) struct Customer {
    pub(crate) name: String,
    command: String,
    http: reqwest::Client,
}

impl World {
    /// Somebody of this name.
    pub(crate) fn customer(&self, name: &str) -> Customer {
        Customer { name: name.to_owned(), command: self.command.url(), http: self.http.clone() }
    }
}

impl Customer {
    /// The body of a request for this basket.
    pub(crate) fn order_of(&self, basket: Basket<'_>) -> Value {
        json!({ "customer_id": self.name, "items": items(basket) })
    }

    /// A request to place an order, to be sent by the caller.
    pub(crate) fn asks_for(&self, basket: Basket<'_>) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/orders", self.command)).json(&self.order_of(basket))
    }

    /// A command on an order, to be sent by the caller.
    pub(crate) fn asks(&self, order: Uuid, verb: &str, body: Option<&Value>) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}/orders/{order}/{verb}", self.command));
        match body {
            Some(body) => request.json(body),
            None => request,
        }
    }

    /// Places an order that is accepted.
    pub(crate) async fn places(&self, basket: Basket<'_>) -> Order {
        Answer::to(self.asks_for(basket)).await.unwrap().is(201).order()
    }

    /// Changes what is ordered.
    pub(crate) async fn changes(&self, order: Order, basket: Basket<'_>) -> Order {
        let url = format!("{}/orders/{}/items", self.command, order.id);
        let request = self.http.put(url).json(&json!({ "items": items(basket) }));
        Answer::to(request).await.unwrap().is(200).order()
    }

    pub(crate) async fn pays(&self, order: Order) -> Order {
        Answer::to(self.asks(order.id, "pay", None)).await.unwrap().is(200).order()
    }

    pub(crate) async fn cancels(&self, order: Order) -> Order {
        let reason = json!({ "reason": "changed my mind" });
        Answer::to(self.asks(order.id, "cancel", Some(&reason))).await.unwrap().is(200).order()
    }

    pub(crate) async fn is_shipped(&self, order: Order) -> Order {
        let by = json!({ "carrier": "snail", "tracking_number": "1" });
        Answer::to(self.asks(order.id, "ship", Some(&by))).await.unwrap().is(200).order()
    }

    pub(crate) async fn receives(&self, order: Order) -> Order {
        Answer::to(self.asks(order.id, "deliver", None)).await.unwrap().is(200).order()
    }
}

fn items(basket: Basket<'_>) -> Value {
    basket.iter().map(|(sku, quantity)| json!({ "sku": sku, "quantity": quantity })).collect()
}
