//! Admission: how much of one class of work runs at once, and an honest refusal of the rest.
//!
//! One shared semaphore per class and no queue (rules R19): a request beyond the limit is refused at once,
//! while it has certainly not been executed.

use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::{Outcome, Problem};

/// The door of one class of work; clones are the same door.
#[derive(Debug, Clone)]
pub struct Admission {
    class: &'static str,
    permits_max: usize,
    permits: Arc<Semaphore>,
}

/// One admitted piece of work. Move it into the detached task, so that it ends with the work.
#[derive(Debug)]
#[must_use = "dropping the permit ends the admission"]
pub struct Permit {
    _permit: OwnedSemaphorePermit,
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
        Self { class, permits_max, permits: Arc::new(Semaphore::new(permits_max)) }
    }

    /// Admits one piece of work, or refuses it without waiting.
    ///
    /// # Errors
    ///
    /// 503 `overloaded`, outcome not executed, with `Retry-After` of 1 to 3 seconds so that the refused do
    /// not all return at once.
    pub fn try_enter(&self) -> Result<Permit, Problem> {
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => {
                let in_use = metrics::gauge!("http_admission_in_use", "class" => self.class);
                in_use.increment(1.0);
                Ok(Permit { _permit: permit, in_use })
            }
            Err(_full) => {
                metrics::counter!("http_admission_refused_total", "class" => self.class).increment(1);
                Err(self.overloaded())
            }
        }
    }

    fn overloaded(&self) -> Problem {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Overloaded",
            format!("{} {} are already in progress", self.permits_max, self.class),
        )
        .outcome(Outcome::NotExecuted)
        .retry_after(fastrand::u64(1..=3))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_too_many_is_refused_until_a_permit_ends() {
        let door = Admission::new("commands", 1);
        let same_door = door.clone();
        let permit = same_door.try_enter().unwrap();
        let problem = door.try_enter().unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (503, "overloaded"));
        assert_eq!(problem.headers()[0].0, "retry-after");
        let body = String::from_utf8(problem.body()).unwrap();
        assert!(body.contains(r#""outcome":"not-executed""#), "{body}");
        drop((permit, same_door));
        assert!(door.try_enter().is_ok());
    }
}
