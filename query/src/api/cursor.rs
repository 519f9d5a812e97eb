//! The place in a list where the next page begins: opaque to clients, a key to us, so that a list may grow while it is
//! walked and no order is shown twice or skipped.

use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header::LINK;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::http::problem::Problem;
use domain::{Currency, CustomerId, OrderId, Sku};
use uuid::Uuid;

use crate::projections::cancellations::Reason;
use crate::store::answer::Sort;

/// A sort key that travels as a cursor.
pub(super) trait Key: Sized {
    /// The key as bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The key of these bytes, if they are one.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Orders: how they are sorted, by what, then id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OrderKey {
    pub(super) sort: Sort,
    pub(super) key: (i64, OrderId),
}

impl Key for OrderKey {
    fn to_bytes(&self) -> Vec<u8> {
        let sort = match self.sort {
            Sort::Newest => b'n',
            Sort::Oldest => b'o',
            Sort::Dearest => b'd',
            Sort::Cheapest => b'c',
        };
        let (value, id) = self.key;
        [[sort].as_slice(), value.to_be_bytes().as_slice(), id.0.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (sort, bytes) = bytes.split_first()?;
        let sort = match sort {
            b'n' => Sort::Newest,
            b'o' => Sort::Oldest,
            b'd' => Sort::Dearest,
            b'c' => Sort::Cheapest,
            _ => return None,
        };
        let (value, id) = bytes.split_first_chunk::<8>()?;
        Some(Self { sort, key: (i64::from_be_bytes(*value), OrderId(Uuid::from_slice(id).ok()?)) })
    }
}

/// Customers: id.
impl Key for CustomerId {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_str().as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        str::from_utf8(bytes).ok()?.parse().ok()
    }
}

/// Days: days since 1970, then currency.
impl Key for (i64, Currency) {
    fn to_bytes(&self) -> Vec<u8> {
        [self.0.to_be_bytes().as_slice(), self.1.code().as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (day, currency) = bytes.split_first_chunk::<8>()?;
        Some((i64::from_be_bytes(*day), str::from_utf8(currency).ok()?.parse().ok()?))
    }
}

/// Products: currency, then SKU.
impl Key for (Sku, Currency) {
    fn to_bytes(&self) -> Vec<u8> {
        [self.1.code().as_bytes(), self.0.as_str().as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (currency, sku) = bytes.split_first_chunk::<3>()?;
        Some((str::from_utf8(sku).ok()?.parse().ok()?, str::from_utf8(currency).ok()?.parse().ok()?))
    }
}

/// Cancellations: days since 1970, then customer and reason, between which stands what no customer's id contains.
impl Key for (i64, CustomerId, Reason) {
    fn to_bytes(&self) -> Vec<u8> {
        let (day, customer, reason) = self;
        [day.to_be_bytes().as_slice(), customer.as_str().as_bytes(), &[0], reason.as_str().as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (day, rest) = bytes.split_first_chunk::<8>()?;
        let (customer, reason) = str::from_utf8(rest).ok()?.split_once('\0')?;
        Some((i64::from_be_bytes(*day), customer.parse().ok()?, Reason::from(reason)))
    }
}

/// Reads a cursor; 400 `invalid-cursor` when it is none of this list.
pub(super) fn decode<K: Key>(cursor: Option<&str>) -> Result<Option<K>, Problem> {
    let Some(cursor) = cursor else { return Ok(None) };
    let key = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| K::from_bytes(&bytes));
    key.map(Some).ok_or_else(invalid)
}

/// 400 `invalid-cursor`.
pub(super) fn invalid() -> Problem {
    let detail = "the cursor is not one that this list gave; start again without it";
    Problem::new(StatusCode::BAD_REQUEST, "invalid-cursor", "Invalid cursor", detail).error("cursor", "invalid", detail)
}

/// Tells where the next page is: the same question with another cursor. `after` is left behind: the first page has
/// waited for it, and what it waited for does not go away.
pub(super) fn link_next(response: &mut Response, path: &str, query: Option<&str>, last: &impl Key) {
    let mut next = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        if name != "cursor" && name != "after" {
            next.append_pair(&name, &value);
        }
    }
    next.append_pair("cursor", &URL_SAFE_NO_PAD.encode(last.to_bytes()));
    let link = format!("<{path}?{}>; rel=\"next\"", next.finish());
    // What the serializer writes is ASCII.
    if let Ok(link) = HeaderValue::try_from(link) {
        response.headers_mut().insert(LINK, link);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_round() {
        let key = OrderKey { sort: Sort::Cheapest, key: (-5, OrderId(Uuid::from_u128(7))) };
        let cursor = URL_SAFE_NO_PAD.encode(key.to_bytes());
        assert_eq!(decode(Some(&cursor)).unwrap(), Some(key));
        let key: (Sku, Currency) = ("prød-1".parse().unwrap(), "BHD".parse().unwrap());
        assert_eq!(<(Sku, Currency)>::from_bytes(&key.to_bytes()), Some(key));
    }

    #[test]
    fn anything_else_is_refused() {
        for cursor in ["", "x", "AAAA", "=", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(decode::<OrderKey>(Some(cursor)).unwrap_err().code(), "invalid-cursor", "{cursor:?}");
        }
    }
}
