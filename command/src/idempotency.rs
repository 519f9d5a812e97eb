//! Idempotency keys: the claim of a key and the answer to its request are part of the command's own transaction.
//!
//! A key is locked, looked up, and written together with the events (rules R3; the procedure `append` of the migrations). Locking
//! first means that nobody else can be between the look-up and the write, so a busy key is found out at once instead of
//! being waited for, and one insert per key is enough. The primary key of the table stands behind that.

mod expiry;

use std::collections::HashMap;

use domain::Version;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;

pub use expiry::{expire, forget_expired};

/// The most characters of a key.
pub const KEY_CHARS_MAX: usize = 255;

/// A client's name for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What the client sent.
    pub key: String,
    /// Identifies the request: a key belongs to one request for ever.
    pub fingerprint: [u8; 32],
    /// The fingerprint as it was before it included `If-Match`. Keys that were stored then are still answered.
    without_condition: [u8; 32],
}

impl Key {
    /// The key of a request that is identified by its method, its path, the versions that it accepts, and its exact body.
    pub fn new(key: String, method: &str, path: &str, expected: &[Version], body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // Lengths keep the parts apart.
        for part in [method.as_bytes(), path.as_bytes(), body] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        let without_condition = hash.clone().finalize().into();
        // Even without a condition the hash is another one, so that a stored key tells which of the two it has.
        hash.update(expected.len().to_be_bytes());
        for version in expected {
            hash.update(version.0.to_be_bytes());
        }
        Self { key, fingerprint: hash.finalize().into(), without_condition }
    }

    /// Whether a stored fingerprint is this request's.
    pub(crate) fn is_of(&self, stored: &[u8]) -> bool {
        stored == self.fingerprint || stored == self.without_condition
    }

    /// Its lock. A collision of two keys makes one of them look busy for a moment, nothing worse.
    pub(crate) fn lock_id(&self) -> i64 {
        let hash = Sha256::digest(self.key.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash[..8]);
        i64::from_be_bytes(first)
    }
}

/// An answer as it was given, kept for the key's life and given again byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The `ETag` header.
    pub etag: Option<String>,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body: JSON, and problem+json when the status is an error.
    pub body: String,
}

/// What was remembered under a key.
#[derive(Debug, Clone)]
pub(crate) struct Remembered {
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) reply: Reply,
}

/// Looks up what was answered under keys. An answer never changes, so nothing is locked.
pub(crate) async fn remembered(
    connection: &mut PgConnection,
    keys: &[String],
) -> Result<HashMap<String, Remembered>, sqlx::Error> {
    type Row = (String, Vec<u8>, i16, Option<String>, Option<String>, String);
    let rows: Vec<Row> = sqlx::query_as(
        "select key, fingerprint, status, etag, location, body from idempotency_keys where key = any($1)",
    )
    .bind(keys)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|(key, fingerprint, status, etag, location, body)| {
            let status = u16::try_from(status).map_err(|negative| sqlx::Error::Decode(negative.into()))?;
            Ok((key, Remembered { fingerprint, reply: Reply { status, etag, location, body } }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_requests_apart() {
        let key = |method, path, body| Key::new("k".to_owned(), method, path, &[], body).fingerprint;
        assert_eq!(key("POST", "/orders", b"{}"), key("POST", "/orders", b"{}"));
        assert_ne!(key("POST", "/orders", b"{}"), key("POST", "/orders", b"{ }"));
        assert_ne!(key("POST", "/orders", b"{}"), key("PUT", "/orders", b"{}"));
        assert_ne!(key("POST", "/a", b"b"), key("POST", "/ab", b""));
    }

    #[test]
    fn a_condition_belongs_to_the_request_and_older_keys_know_of_none() {
        let key = |versions: &[u32]| {
            let versions: Vec<Version> = versions.iter().copied().map(Version).collect();
            Key::new("k".to_owned(), "POST", "/orders/1/pay", &versions, b"{}")
        };
        assert!(key(&[7]).is_of(&key(&[7]).fingerprint));
        assert!(!key(&[1]).is_of(&key(&[7]).fingerprint));
        assert!(!key(&[]).is_of(&key(&[7]).fingerprint));
        assert!(!key(&[7]).is_of(&key(&[]).fingerprint));
        // SHA-256 of the lengths and bytes of "POST", "/orders/1/pay" and "{}", as it was stored before.
        let mut stored = Sha256::new();
        for part in ["POST", "/orders/1/pay", "{}"] {
            stored.update(part.len().to_be_bytes());
            stored.update(part);
        }
        let stored = stored.finalize();
        assert!(key(&[]).is_of(&stored) && key(&[7]).is_of(&stored), "a key of before the upgrade");
    }
}
