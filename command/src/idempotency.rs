//! Idempotency keys: the claim of a key and the answer to its request are part of the command's own transaction.
//!
//! A key is locked, looked up, and written together with the events (rules R3; the procedure `append` of the migrations). Locking
//! first means that nobody else can be between the look-up and the write, so a busy key is found out at once instead of
//! being waited for, and one insert per key is enough. The primary key of the table stands behind that.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use sqlx::PgConnection;

/// The most characters of a key.
pub const KEY_CHARS_MAX: usize = 255;

/// A client's name for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What the client sent.
    pub key: String,
    /// Identifies the request: a key belongs to one request for ever.
    pub fingerprint: [u8; 32],
}

impl Key {
    /// The key of a request that is identified by its method, path and exact body.
    pub fn new(key: String, method: &str, path: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // Lengths keep the parts apart.
        for part in [method.as_bytes(), path.as_bytes(), body] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self { key, fingerprint: hash.finalize().into() }
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
    Ok(rows
        .into_iter()
        .map(|(key, fingerprint, status, etag, location, body)| {
            let status = u16::try_from(status).unwrap_or(500);
            (key, Remembered { fingerprint, reply: Reply { status, etag, location, body } })
        })
        .collect())
}

/// Forgets keys that are older than `keep_s` seconds, a bounded number at a time. Returns how many.
///
/// # Errors
///
/// The database's.
pub async fn forget_expired(connection: &mut PgConnection, keep_s: u32, keys_max: u32) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query(
        "delete from idempotency_keys where key in (
             select key from idempotency_keys where created_at < now() - make_interval(secs => $1) limit $2)",
    )
    .bind(f64::from(keep_s))
    .bind(i64::from(keys_max))
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_tells_requests_apart() {
        let key = |method, path, body| Key::new("k".to_owned(), method, path, body).fingerprint;
        assert_eq!(key("POST", "/orders", b"{}"), key("POST", "/orders", b"{}"));
        assert_ne!(key("POST", "/orders", b"{}"), key("POST", "/orders", b"{ }"));
        assert_ne!(key("POST", "/orders", b"{}"), key("PUT", "/orders", b"{}"));
        assert_ne!(key("POST", "/a", b"b"), key("POST", "/ab", b""));
    }
}
