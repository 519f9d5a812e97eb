//! Tasks with names, one shutdown token, and a process that ends when any of them does.
//!
//! Everything spawned is joined: on a signal (or on the first task to end, which is always a fault) the
//! token is cancelled, and whoever is still running when the grace has passed is named.

use std::any::Any;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::Future;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::telemetry::ErrorChain;

type Failure = Box<dyn StdError + Send + Sync>;
type Ended = Result<(Id, Result<(), Failure>), JoinError>;

/// Why the process ends otherwise than by a drained shutdown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task returned an error.
    #[error("task {name} failed")]
    Failed {
        /// Which task.
        name: &'static str,
        /// What it returned.
        #[source]
        source: Failure,
    },
    /// A task returned although nobody asked it to.
    #[error("task {name} ended before shutdown")]
    EndedEarly {
        /// Which task.
        name: &'static str,
    },
    /// A task panicked.
    #[error("task {name} panicked: {message}")]
    Panicked {
        /// Which task.
        name: &'static str,
        /// What it panicked with.
        message: String,
    },
    /// Tasks were still running when the grace had passed; they were aborted.
    #[error("not drained after {grace_ms} ms: {}", names.join(", "))]
    NotDrained {
        /// Which tasks.
        names: Vec<&'static str>,
        /// How long they had.
        grace_ms: u128,
    },
}

/// The tasks of a process.
#[derive(Debug, Default)]
pub struct Tasks {
    set: JoinSet<Result<(), Failure>>,
    names: HashMap<Id, &'static str>,
    shutdown: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The token every task watches; cancelled once, when the process drains.
    pub fn shutdown(&self) -> CancellationToken {
        self.shutdown.clone()
    }

    /// Starts `task` under `name`. It must run until the shutdown token is cancelled.
    pub fn spawn<E>(&mut self, name: &'static str, task: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: StdError + Send + Sync + 'static,
    {
        let task = async move { task.await.map_err(|error| Box::new(error) as Failure) };
        let handle = self.set.spawn(task.instrument(tracing::info_span!("task", task = name)));
        self.names.insert(handle.id(), name);
    }

    /// Runs until `signal` or until the first task ends, then drains.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], [`Error::EndedEarly`] or [`Error::Panicked`] for the first task that ended
    /// otherwise than by the shutdown; [`Error::NotDrained`] for those that outlived `grace`.
    pub async fn run(mut self, signal: impl Future, grace: Duration) -> Result<(), Error> {
        let first = self.until_first(signal).await;
        if let Err(error) = &first {
            tracing::error!(error = %ErrorChain(error), "a task ended: the process drains and ends");
        }
        self.shutdown.cancel();
        let drained = self.drain(grace).await;
        // The first cause explains the rest; what followed was logged while draining.
        first.and(drained)
    }

    async fn until_first(&mut self, signal: impl Future) -> Result<(), Error> {
        tokio::select! {
            biased;
            _ = signal => Ok(()),
            Some(ended) = self.set.join_next_with_id() => {
                let (name, outcome) = self.named(ended);
                outcome.and(Err(Error::EndedEarly { name }))
            }
        }
    }

    async fn drain(&mut self, grace: Duration) -> Result<(), Error> {
        let deadline = tokio::time::Instant::now() + grace;
        let mut first = Ok(());
        loop {
            match tokio::time::timeout_at(deadline, self.set.join_next_with_id()).await {
                Ok(None) => return first,
                Ok(Some(ended)) => {
                    let (name, outcome) = self.named(ended);
                    match outcome {
                        Ok(()) => tracing::debug!(task = name, "drained"),
                        Err(error) => {
                            tracing::error!(error = %ErrorChain(&error), "a task failed while draining");
                            first = first.and(Err(error));
                        }
                    }
                }
                Err(_elapsed) => {
                    let mut names: Vec<_> = self.names.values().copied().collect();
                    names.sort_unstable();
                    self.set.abort_all();
                    return Err(Error::NotDrained { names, grace_ms: grace.as_millis() });
                }
            }
        }
    }

    fn named(&mut self, ended: Ended) -> (&'static str, Result<(), Error>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        let outcome = match ended {
            Ok((_, Ok(()))) => Ok(()),
            Ok((_, Err(source))) => Err(Error::Failed { name, source }),
            Err(error) => Err(Error::Panicked { name, message: panic_message(error) }),
        };
        (name, outcome)
    }
}

fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => payload_text(payload.as_ref()),
        Err(error) => error.to_string(),
    }
}

/// The text of a panic's payload.
pub(crate) fn payload_text(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a payload that is not text".to_owned())
}

/// Completes on SIGTERM or SIGINT.
///
/// When no handler can be installed it completes at once: a process that cannot be told to stop must not
/// start.
pub async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
                _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "no signal handler can be installed");
        }
    }
}

/// Runs `work` to its end on a task of its own, even when the caller's future is dropped.
///
/// A disconnecting client drops the handler's future wherever it happens to wait; database work that is
/// dropped inside a transaction leaves it open for the connection's next borrower (rules R2).
///
/// # Errors
///
/// When `work` panicked.
pub async fn detached<F>(work: F) -> Result<F::Output, JoinError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    tokio::spawn(work.in_current_span()).await
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::{pending, ready};
    use std::io;

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    async fn until(token: CancellationToken) -> Result<(), Infallible> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn a_signal_drains_every_task() {
        let mut tasks = Tasks::new();
        tasks.spawn("relay", until(tasks.shutdown()));
        tasks.spawn("server", until(tasks.shutdown()));
        tasks.run(ready(()), GRACE).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_task_to_fail_is_named_and_the_rest_drained() {
        let mut tasks = Tasks::new();
        let shutdown = tasks.shutdown();
        tasks.spawn("server", until(tasks.shutdown()));
        tasks.spawn("relay", async { Err(io::Error::other("no broker")) });
        let error = tasks.run(pending::<()>(), GRACE).await.unwrap_err();
        assert_eq!(ErrorChain(&error).to_string(), "task relay failed: no broker");
        assert!(shutdown.is_cancelled());
    }

    #[tokio::test]
    async fn a_task_that_just_ends_or_panics_is_named_too() {
        let mut tasks = Tasks::new();
        tasks.spawn("relay", async { Ok::<_, Infallible>(()) });
        let error = tasks.run(pending::<()>(), GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "task relay ended before shutdown");

        let mut tasks = Tasks::new();
        tasks.spawn("relay", async {
            if true {
                panic!("out of luck");
            }
            Ok::<_, Infallible>(())
        });
        let error = tasks.run(pending::<()>(), GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "task relay panicked: out of luck");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_drain_is_named() {
        let mut tasks = Tasks::new();
        tasks.spawn("server", until(tasks.shutdown()));
        tasks.spawn("relay", pending::<Result<(), Infallible>>());
        let error = tasks.run(ready(()), GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "not drained after 5000 ms: relay");
    }

    #[tokio::test]
    async fn detached_work_outlives_its_caller() {
        let (started, wait_started) = tokio::sync::oneshot::channel();
        let (release, released) = tokio::sync::oneshot::channel::<()>();
        let (done, wait_done) = tokio::sync::oneshot::channel();
        let caller = tokio::spawn(detached(async move {
            started.send(()).unwrap();
            released.await.unwrap();
            done.send(()).unwrap();
        }));
        wait_started.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        release.send(()).unwrap();
        wait_done.await.unwrap();
    }
}
