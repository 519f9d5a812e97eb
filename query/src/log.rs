//! The event log, asked over HTTP: `GET /internal/events` of `order-command`, for what the topic does not tell.

use std::str::FromStr;
use std::time::Duration;

use domain::{OrderId, Version};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use serde::Deserialize;
use thiserror::Error;

use crate::intake::{Headers, Position, Record};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a page may take to its last byte.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest page, in bytes.
const PAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Where records stand that come from the log and not from the topic.
pub const FROM_THE_LOG: Position = Position { partition: -1, offset: -1 };

/// Where the log is: the base URL of `order-command`, such as `http://127.0.0.1:8000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogUrl(Url);

/// Not the base URL of an HTTP server.
#[derive(Debug, Error)]
#[error("it has to be the base URL of order-command, as http://127.0.0.1:8000")]
pub struct NotABaseUrl;

impl FromStr for LogUrl {
    type Err = NotABaseUrl;

    fn from_str(text: &str) -> Result<Self, NotABaseUrl> {
        let mut url = Url::parse(text).map_err(|_syntax| NotABaseUrl)?;
        let plain = url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !plain {
            return Err(NotABaseUrl);
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(Self(url))
    }
}

/// Why the log does not tell.
#[derive(Debug, Error)]
pub enum LogError {
    /// It cannot be reached, or does not answer in time or in JSON.
    #[error("the event log does not answer")]
    Unreachable(#[from] reqwest::Error),
    /// It answers something else.
    #[error("the event log answers {status}")]
    Refused {
        /// The HTTP status.
        status: u16,
    },
    /// What it answers is too large.
    #[error("a page of the event log has more than {PAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// What it answers is no page.
    #[error("the event log answers what is no page of it")]
    NotAPage(#[from] serde_json::Error),
}

/// A client of the log. Clones share their connections.
#[derive(Debug, Clone)]
pub struct LogClient {
    client: Client,
    events: Url,
}

/// Some events of the log: by order, and of each order by version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The events.
    pub records: Vec<LogRecord>,
    /// The last of them, after which the next page begins; none on the last page.
    pub next: Option<(OrderId, Version)>,
}

/// An event of the log, as its record on the topic is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Whose event.
    pub order_id: OrderId,
    /// Which of its events.
    pub version: Version,
    /// The record, standing [`FROM_THE_LOG`].
    pub record: Record,
}

/// A page on the wire.
#[derive(Deserialize)]
struct Page {
    events: Vec<Event>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Event {
    order_id: OrderId,
    version: Version,
    message: String,
    headers: Vec<(String, String)>,
}

impl From<Event> for LogRecord {
    fn from(event: Event) -> Self {
        let Event { order_id, version, message, headers } = event;
        let record = Record {
            position: FROM_THE_LOG,
            key: Some(order_id.to_string().into_bytes()),
            payload: Some(message.into_bytes()),
            headers: Headers::told(headers.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes()))),
        };
        Self { order_id, version, record }
    }
}

impl LogClient {
    /// A client of the log at `url`, which is first asked when it is used.
    ///
    /// # Errors
    ///
    /// When the HTTP client cannot be built.
    pub fn new(url: &LogUrl) -> Result<Self, LogError> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(PAGE_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy()
            .build()?;
        let mut events = url.0.clone();
        events.set_path(&format!("{}internal/events", url.0.path()));
        Ok(Self { client, events })
    }

    /// The events after `after`, at most `limit` (the server allows 5000); from the first on without it.
    ///
    /// # Errors
    ///
    /// When the log does not answer in time, or not with a page.
    pub async fn page(&self, after: Option<(OrderId, Version)>, limit: u32) -> Result<LogPage, LogError> {
        let mut url = self.events.clone();
        url.query_pairs_mut().append_pair("limit", &limit.to_string());
        if let Some((order_id, version)) = after {
            url.query_pairs_mut().append_pair("after", &format!("{order_id}:{version}"));
        }
        let answer = self.client.get(url).send().await?;
        if !answer.status().is_success() {
            return Err(LogError::Refused { status: answer.status().as_u16() });
        }
        let Page { events, next } = serde_json::from_slice(&body(answer).await?)?;
        let records: Vec<LogRecord> = events.into_iter().map(LogRecord::from).collect();
        // The place after a page is that of its last event.
        let next = next.and_then(|_told| records.last().map(|last| (last.order_id, last.version)));
        Ok(LogPage { records, next })
    }
}

async fn body(mut answer: Response) -> Result<Vec<u8>, LogError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if bytes.len() + chunk.len() > PAGE_BYTES_MAX {
            return Err(LogError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_events_are_below_the_base() {
        for (base, events) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000/internal/events"),
            ("http://orders/command", "http://orders/command/internal/events"),
        ] {
            assert_eq!(LogClient::new(&base.parse().unwrap()).unwrap().events.as_str(), events);
        }
        for text in ["", "127.0.0.1:8000", "ftp://x", "http://x/?a=b", "http://"] {
            assert!(text.parse::<LogUrl>().is_err(), "{text:?}");
        }
    }
}
