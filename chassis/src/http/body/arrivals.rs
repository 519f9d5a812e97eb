//! The bodies that are on their way.
//!
//! A body that finds no room displaces the oldest one: of its own peer when that peer has its share, of all otherwise.
//! A body that means to arrive does so within milliseconds and is rarely the oldest. Bodies that never come displace
//! each other, and whoever sends them keeps nobody out. To refuse the newest instead would let them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::super::peer::Peer;

/// The bodies that are on their way to one server; clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    bodies_max: usize,
    share_max: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, (Peer, oneshot::Sender<()>)>,
    by_peer: BTreeMap<Peer, BTreeSet<u64>>,
}

/// The place of one body that is on its way.
#[derive(Debug)]
pub(super) struct Place {
    arrivals: Arrivals,
    number: u64,
    displaced: oneshot::Receiver<()>,
}

impl Arrivals {
    /// Room for `bodies_max` bodies, `share_max` of one peer.
    pub(crate) fn new(bodies_max: usize, share_max: usize) -> Self {
        Self { bodies_max: bodies_max.max(1), share_max: share_max.max(1), waiting: Arc::default() }
    }

    /// Gives a body of this peer a place, the oldest one's if it must.
    pub(super) fn enter(&self, peer: Peer) -> Place {
        let mut waiting = self.lock();
        let own = waiting.by_peer.get(&peer).filter(|own| peer != Peer::UNKNOWN && own.len() >= self.share_max);
        let oldest = match own {
            Some(own) => own.first().copied(),
            None if waiting.by_age.len() >= self.bodies_max => waiting.by_age.keys().next().copied(),
            None => None,
        };
        if let Some(oldest) = oldest {
            waiting.remove(oldest);
            metrics::counter!("http_bodies_displaced_total").increment(1);
        }
        let number = waiting.next;
        waiting.next += 1;
        let (place, displaced) = oneshot::channel();
        waiting.by_age.insert(number, (peer, place));
        waiting.by_peer.entry(peer).or_default().insert(number);
        Place { arrivals: self.clone(), number, displaced }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics between two changes that belong together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn remove(&mut self, number: u64) {
        // Dropping the sender is what the owner of the place notices.
        let Some((peer, _place)) = self.by_age.remove(&number) else { return };
        if let Some(own) = self.by_peer.get_mut(&peer) {
            own.remove(&number);
            if own.is_empty() {
                self.by_peer.remove(&peer);
            }
        }
    }
}

impl Place {
    /// Completes when another body needs the place.
    pub(super) async fn displaced(&mut self) {
        // The other end is never used to send.
        let _closed = (&mut self.displaced).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.arrivals.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn is_displaced(place: &mut Place) -> bool {
        place.displaced().now_or_never().is_some()
    }

    #[test]
    fn a_full_house_loses_its_oldest_and_a_full_share_its_own_oldest() {
        let arrivals = Arrivals::new(4, 2);
        let [slow, other, third] =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|address| Peer::at(address.parse().unwrap()));
        let mut others = arrivals.enter(other);
        let mut slows: Vec<_> = (0..9).map(|_| arrivals.enter(slow)).collect();
        assert!(!is_displaced(&mut others), "a greedy peer displaces its own");
        let displaced: Vec<_> = slows.iter_mut().map(is_displaced).collect();
        assert_eq!(displaced, [true, true, true, true, true, true, true, false, false]);
        let _last = arrivals.enter(third);
        assert!(!is_displaced(&mut others));
        let _too_many = arrivals.enter(third);
        assert!(is_displaced(&mut others), "the oldest of all");
    }

    #[test]
    fn an_arrival_leaves_nothing_behind() {
        let arrivals = Arrivals::new(2, 1);
        drop((0..9).map(|_| arrivals.enter(Peer::UNKNOWN)).collect::<Vec<_>>());
        let waiting = arrivals.lock();
        assert!(waiting.by_age.is_empty() && waiting.by_peer.is_empty());
    }
}
