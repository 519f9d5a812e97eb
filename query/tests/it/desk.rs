//! An operator in front of the admin API.

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use chassis::kafka::Brokers;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::contracts;
use crate::world::{Answer, World, get};

/// Asks the admin API to do something, as alice.
pub(crate) async fn post(router: &Router, path: &str, body: Option<Value>) -> Answer {
    let mut request = Request::post(path).header("x-actor", "alice");
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    ask(router, request.body(body).unwrap()).await
}

/// Asks a router, without a connection, and holds its answer against the documents.
pub(crate) async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let (method, target) = (request.method().to_string(), request.uri().to_string());
    let answer = ask_about_damage(router, request).await;
    contracts::allow(&method, &target, answer.status.as_u16(), &answer.headers, answer.text.as_bytes());
    answer
}

/// Asks a router for what a test has damaged: no document describes that.
pub(crate) async fn ask_about_damage(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
}

impl World {
    /// Asks for an intervention, lets the projector grant it, and tells what came of it.
    pub(crate) async fn wish(&mut self, path: &str) -> Value {
        self.wish_with(path, None).await
    }

    /// Discards what the path names.
    pub(crate) async fn discard(&mut self, path: &str) -> Value {
        self.wish_with(&format!("{path}/discard"), Some(json!({ "reason": "a test wrote it" }))).await
    }

    async fn wish_with(&mut self, path: &str, body: Option<Value>) -> Value {
        let asked = post(&self.admin, path, body).await;
        assert_eq!(asked.status, 202, "{asked:?}");
        self.grant_all().await;
        let told = get(&self.admin, asked.headers["location"].to_str().unwrap(), &[]).await.json();
        assert!(told["done_at"].is_string() && told["actor"] == "alice", "{told}");
        assert_eq!(told["outcome"].get("error"), None, "{told}");
        told["outcome"].clone()
    }

    /// Grants everything that was asked for; tells in how many transactions.
    pub(crate) async fn grant_all(&mut self) -> usize {
        let mut transactions = 0;
        while self.projector.intervene().await.unwrap() {
            transactions += 1;
        }
        transactions
    }

    /// As after the topic was found to be another one: the next records are read over the rows there are.
    pub(crate) async fn read_from_zero(self) -> Self {
        let forget = "delete from checkpoints; delete from changes; delete from changes_kept";
        self.tamper(forget, forget).await;
        self.restarted(Brokers("127.0.0.1:1".into()), "orders.events").await
    }

    /// What lists show.
    pub(crate) async fn listed(&self, path: &str) -> Vec<Value> {
        self.get(path).await.json().as_array().unwrap().clone()
    }
}

/// Where the admin API has a dead letter.
pub(crate) fn path_of_letter(listed: &Value) -> String {
    let text = |name: &str| listed[name].as_str().unwrap().to_owned();
    format!("/dead-letters/{}/{}/{}/{}", text("topic"), listed["partition"], listed["offset"], text("digest"))
}

/// Where the admin API has a waiting event.
pub(crate) fn path_of_parked(listed: &Value) -> String {
    let text = |name: &str| listed[name].as_str().unwrap();
    format!("/parked/{}/{}/{}", text("order_id"), listed["version"], text("digest"))
}
