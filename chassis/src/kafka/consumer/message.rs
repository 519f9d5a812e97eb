//! A record as it is read, without the library's lifetime.

use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};

/// One record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its value, byte for byte; `None` is a tombstone.
    pub payload: Option<Vec<u8>>,
    /// Its headers, in order; a header without a value has an empty one.
    pub headers: Vec<(String, Vec<u8>)>,
    /// When it was published, in milliseconds since 1970, if known.
    pub timestamp_ms: Option<i64>,
}

impl Message {
    /// The bytes of its key, its value and its headers.
    pub fn size_bytes(&self) -> usize {
        let bytes = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.len());
        bytes(&self.key) + bytes(&self.payload) + headers.sum::<usize>()
    }
}

impl From<&BorrowedMessage<'_>> for Message {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Vec::new, |headers| {
            headers.iter().map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec())).collect()
        });
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        }
    }
}
