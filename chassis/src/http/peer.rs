//! The client that a request came from, and what one client may hold of what all of them need.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The client that a request came from; an extractor on every route.
///
/// Known by its address: of its connection, or behind a trusted proxy the one that the proxy names
/// ([`super::Limits::trusted_proxies`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer(Option<IpAddr>);

impl Peer {
    /// A client whose address is not known: a trusted proxy did not name it. No share limits it.
    pub const UNKNOWN: Self = Self(None);

    /// The client at an address.
    ///
    /// One host usually owns a whole IPv6 /64 and may use another address of it for each connection, so the prefix
    /// stands for all of them.
    pub fn at(address: IpAddr) -> Self {
        let key = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
            v4 => v4,
        };
        Self(Some(key))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().copied().unwrap_or(Self::UNKNOWN))
    }
}

/// How much of one thing each peer holds, and at most may; clones count together.
///
/// A peer that holds nothing takes no memory.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    share_max: usize,
    held: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One piece of a peer's share, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    of: Option<(Shares, IpAddr)>,
}

impl Shares {
    /// Shares of at most `share_max` pieces.
    pub(super) fn new(share_max: usize) -> Self {
        Self { share_max, held: Arc::default() }
    }

    pub(super) fn share_max(&self) -> usize {
        self.share_max
    }

    /// Takes a piece, unless the peer has its share already.
    pub(super) fn take(&self, peer: Peer) -> Option<Share> {
        let Peer(Some(address)) = peer else { return Some(Share { of: None }) };
        let mut held = self.lock();
        let count = held.entry(address).or_default();
        if *count >= self.share_max {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Share { of: Some((self.clone(), address)) })
    }

    /// Whether the peer has its share already.
    pub(super) fn is_full(&self, Peer(address): Peer) -> bool {
        address.is_some_and(|address| self.lock().get(&address).is_some_and(|&count| count >= self.share_max))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing panics between two changes that belong together.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some((shares, address)) = self.of.take() else { return };
        let mut held = shares.lock();
        if let Some(count) = held.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer::at(address.parse().unwrap())
    }

    #[test]
    fn one_ipv6_network_is_one_peer_and_a_mapped_address_is_its_ipv4_address() {
        assert_eq!(peer("2001:db8:1:2::1"), peer("2001:db8:1:2:ffff::9"));
        assert_ne!(peer("2001:db8:1:2::1"), peer("2001:db8:1:3::1"));
        assert_eq!(peer("::ffff:192.0.2.1"), peer("192.0.2.1"));
        assert_ne!(peer("192.0.2.1"), peer("192.0.2.2"));
    }

    #[test]
    fn a_peer_has_its_share_and_no_more_and_leaves_nothing_behind() {
        let shares = Shares::new(2);
        let (greedy, other) = (peer("192.0.2.1"), peer("192.0.2.2"));
        let held = (shares.take(greedy).unwrap(), shares.take(greedy).unwrap());
        assert!(shares.take(greedy).is_none() && shares.is_full(greedy));
        let others = shares.take(other).unwrap();
        assert!(!shares.is_full(other));
        let unknown: Vec<_> = (0..9).map(|_| shares.take(Peer::UNKNOWN).unwrap()).collect();
        drop(held.0);
        let again = shares.take(greedy).unwrap();
        drop((held.1, again, others, unknown));
        assert!(shares.lock().is_empty());
    }
}
