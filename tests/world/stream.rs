//! A client of `GET /orders/stream`.

use std::time::Duration;

use serde_json::Value;

use super::SOON;
use super::process::Service;
use super::topic::Position;

/// What came over a stream.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    /// The event's type, `reset` among them; none of a comment or the first id.
    pub(crate) event: Option<String>,
    pub(crate) data: Value,
}

/// One connection, and the last id that came over it.
#[derive(Debug)]
pub(crate) struct Stream {
    response: reqwest::Response,
    text: String,
    pub(crate) last_id: String,
}

impl Stream {
    /// Connects, from now on or after `last_id`.
    pub(crate) async fn open(reader: &Service, http: &reqwest::Client, last_id: Option<&str>) -> Self {
        let mut request = http.get(format!("{}/orders/stream", reader.url()));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut stream = Self { response, text: String::new(), last_id: String::new() };
        let begun = stream.next(SOON).await.expect("a stream begins with an id");
        assert_eq!(begun.event, None, "{begun:?}");
        stream
    }

    /// What comes next within this time.
    pub(crate) async fn next(&mut self, within: Duration) -> Option<Told> {
        tokio::time::timeout(within, self.receive()).await.ok()
    }

    async fn receive(&mut self) -> Told {
        loop {
            if let Some((whole, rest)) = self.text.split_once("\n\n") {
                let (whole, rest) = (whole.to_owned(), rest.to_owned());
                self.text = rest;
                return self.read(&whole);
            }
            let chunk = self.response.chunk().await.unwrap().expect("the stream goes on");
            self.text.push_str(str::from_utf8(&chunk).unwrap());
        }
    }

    fn read(&mut self, whole: &str) -> Told {
        let mut told = Told { event: None, data: Value::Null };
        for line in whole.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut self.last_id),
                Some(("event", event)) => told.event = Some(event.to_owned()),
                Some(("data", data)) => told.data = serde_json::from_str(data).unwrap(),
                _ => {}
            }
        }
        told
    }

    /// The next event of an order; comments are passed over.
    pub(crate) async fn event(&mut self) -> Position {
        loop {
            let told = self.next(SOON).await.expect("an event comes");
            match told.event.as_deref() {
                None => {}
                Some("reset") => panic!("the stream was reset: {}", told.data),
                Some(_) => return serde_json::from_value(told.data).unwrap(),
            }
        }
    }
}
