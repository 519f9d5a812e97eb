//! A plain HTTP/1.1 client whose every answer is held against a document. One request per connection, so that a test
//! can send what a well-behaved client does not.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::contract::Contract;

/// The longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    announced: Option<usize>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Ask {
    /// A request without a body.
    pub fn new(method: &str, target: impl Into<String>) -> Self {
        let (method, target) = (method.to_owned(), target.into());
        Self { method, target, headers: Vec::new(), body: Vec::new(), announced: None }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// With a body of this type.
    #[must_use]
    pub fn body(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self.header("content-type", content_type) }
    }

    /// With a JSON body.
    #[must_use]
    pub fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.body("application/json", body)
    }

    /// With a body that never comes.
    #[must_use]
    pub fn stalled(self) -> Self {
        Self { announced: Some(10), ..self.header("content-type", "application/json") }
    }

    /// With another name in its path.
    pub(super) fn naming(self, name: &str, other: &str) -> Self {
        Self { target: self.target.replace(&format!("/{name}"), &format!("/{other}")), ..self }
    }

    /// Sends it, and holds the answer against the document.
    ///
    /// # Panics
    ///
    /// When there is no answer, or the document does not allow it.
    pub async fn send(self, to: SocketAddr, contract: &Contract) -> Reply {
        self.try_send(to, contract).await.unwrap_or_else(|fault| panic!("{fault}"))
    }

    /// Sends it, and holds the answer against the document.
    pub(super) async fn try_send(self, to: SocketAddr, contract: &Contract) -> Result<Reply, String> {
        let Self { method, target, .. } = &self;
        let reply = match tokio::time::timeout(PATIENCE, self.exchange(to)).await {
            Ok(exchanged) => exchanged.map_err(|error| format!("{method} {target}: {error}"))?,
            Err(_elapsed) => return Err(format!("{method} {target}: no answer within {PATIENCE:?}")),
        };
        match contract.check(method, target, reply.status, &reply.headers, &reply.body)? {
            true => Ok(reply),
            false => Err(format!("{method} {target} is no operation")),
        }
    }

    async fn exchange(&self, to: SocketAddr) -> std::io::Result<Reply> {
        let mut stream = TcpStream::connect(to).await?;
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let length = self.announced.unwrap_or(self.body.len());
        if length > 0 {
            head.push_str(&format!("content-length: {length}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).await?;
        // A server that refuses a body by its length closes before it is sent.
        let _refused = stream.write_all(&self.body).await;
        read(&mut stream).await
    }
}

/// Reads one answer: as long as it says, or to the end of its head where it does not say.
async fn read(stream: &mut TcpStream) -> std::io::Result<Reply> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        let mut part = vec![0; 16_384];
        match stream.read(&mut part).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend(part.iter().take(read)),
        }
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            headers.append(name, value);
        }
    }
    let mut body = bytes.split_off((end + 4).min(bytes.len()));
    let length = headers.get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    while body.len() < length.unwrap_or_default() {
        let mut part = vec![0; 16_384];
        match stream.read(&mut part).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => body.extend(part.iter().take(read)),
        }
    }
    Ok(Reply { status: status.ok_or(std::io::ErrorKind::InvalidData)?, headers, body })
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of the problem; empty where the answer is none.
    pub fn code(&self) -> String {
        if self.status < 400 { String::new() } else { self.json()["code"].as_str().unwrap_or_default().to_owned() }
    }

    /// Fails unless this is the problem.
    ///
    /// # Panics
    ///
    /// When it is not.
    #[track_caller]
    pub fn is(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{}", String::from_utf8_lossy(&self.body));
    }
}
