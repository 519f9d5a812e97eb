//! Admission: how much of one class of work runs at once, and an honest refusal of the rest.
//!
//! One shared semaphore per class and no queue (rules R19): a request beyond the limit is refused at once,
//! while it has certainly not been executed. A class may have shares: what one peer holds of it is limited, so that
//! others always find room.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::peer::{Peer, Share, Shares};
use super::problem::{Outcome, Problem};

/// The door of one class of work; clones are the same door.
#[derive(Debug, Clone)]
pub struct Admission {
    class: &'static str,
    permits_max: usize,
    permits: Arc<Semaphore>,
    shares: Option<Shares>,
}

/// One admitted piece of work. Move it into the detached task, so that it ends with the work.
#[derive(Debug)]
#[must_use = "dropping the permit ends the admission"]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
    _share: Option<Share>,
    in_use: metrics::Gauge,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.in_use.decrement(1.0);
    }
}

impl Admission {
    /// A door for `class` that lets `permits_max` pieces of work in at once.
    pub fn new(class: &'static str, permits_max: usize) -> Self {
        let permits_max = permits_max.min(Semaphore::MAX_PERMITS);
        Self { class, permits_max, permits: Arc::new(Semaphore::new(permits_max)), shares: None }
    }

    /// With shares: one peer holds at most `share_max` of the permits. See [`super::Limits::peer_share`].
    #[must_use]
    pub fn with_share(self, share_max: usize) -> Self {
        let shares = (share_max < self.permits_max).then(|| Shares::new(share_max));
        Self { shares, ..self }
    }

    /// Admits one piece of work that counts for no peer, or refuses it without waiting.
    ///
    /// # Errors
    ///
    /// As [`Admission::try_enter_for`] when there is no permit left.
    pub fn try_enter(&self) -> Result<Permit, Problem> {
        self.try_enter_for(Peer::UNKNOWN)
    }

    /// Admits one piece of a peer's work, or refuses it without waiting.
    ///
    /// # Errors
    ///
    /// 503 `overloaded`, outcome not executed, when there is no permit left or the peer holds its share, with
    /// `Retry-After` of 1 to 3 seconds so that the refused do not all return at once.
    pub fn try_enter_for(&self, peer: Peer) -> Result<Permit, Problem> {
        let share = match &self.shares {
            Some(shares) => Some(shares.take(peer).ok_or_else(|| self.share_is_used(shares))?),
            None => None,
        };
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_full| self.overloaded())?;
        let in_use = metrics::gauge!("http_admission_in_use", "class" => self.class);
        in_use.increment(1.0);
        Ok(Permit { _permit: permit, _share: share, in_use })
    }

    /// Refuses a peer's work that would not be admitted now, and holds nothing.
    ///
    /// # Errors
    ///
    /// As [`Admission::try_enter_for`].
    pub fn require_room_for(&self, peer: Peer) -> Result<(), Problem> {
        match &self.shares {
            Some(shares) if shares.is_full(peer) => Err(self.share_is_used(shares)),
            _ if self.permits.available_permits() == 0 => Err(self.overloaded()),
            _ => Ok(()),
        }
    }

    fn overloaded(&self) -> Problem {
        self.refuse("full", format!("{} {} are already in progress", self.permits_max, self.class))
    }

    fn share_is_used(&self, shares: &Shares) -> Problem {
        let (share_max, class) = (shares.share_max(), self.class);
        self.refuse("share", format!("{share_max} {class} from your address are already in progress"))
    }

    fn refuse(&self, reason: &'static str, detail: String) -> Problem {
        metrics::counter!("http_admission_refused_total", "class" => self.class, "reason" => reason).increment(1);
        overloaded(detail)
    }
}

/// 503 `overloaded`: not executed, and worth another try in 1 to 3 seconds.
pub(super) fn overloaded(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Overloaded", detail)
        .outcome(Outcome::NotExecuted)
        .retry_after(fastrand::u64(1..=3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_refused_until_a_permit_ends() {
        let door = Admission::new("commands", 1);
        let same_door = door.clone();
        door.require_room_for(Peer::UNKNOWN).unwrap();
        let permit = same_door.try_enter().unwrap();
        let problem = door.try_enter().unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (503, "overloaded"));
        assert_eq!(problem.headers()[0].0, "retry-after");
        let body = String::from_utf8(problem.body()).unwrap();
        assert!(body.contains(r#""outcome":"not-executed""#), "{body}");
        assert_eq!(door.require_room_for(Peer::UNKNOWN).unwrap_err().code(), "overloaded");
        drop((permit, same_door));
        assert!(door.try_enter().is_ok());
    }

    #[test]
    fn one_peer_leaves_room_for_others() {
        let door = Admission::new("waits", 4).with_share(2);
        let [greedy, other] = ["192.0.2.1", "192.0.2.2"].map(|address| Peer::at(address.parse().unwrap()));
        let mut held: Vec<_> = (0..2).map(|_| door.try_enter_for(greedy).unwrap()).collect();
        assert!(door.require_room_for(greedy).is_err());
        for _ in 0..9 {
            assert_eq!(door.try_enter_for(greedy).unwrap_err().code(), "overloaded");
        }
        door.require_room_for(other).unwrap();
        held.extend((0..2).map(|_| door.try_enter_for(other).unwrap()));
        // A refusal for want of permits gives the share back.
        let third = Peer::at("192.0.2.3".parse().unwrap());
        assert!(door.try_enter_for(third).is_err());
        held.clear();
        let _whole_share = [door.try_enter_for(third).unwrap(), door.try_enter_for(third).unwrap()];
    }
}
