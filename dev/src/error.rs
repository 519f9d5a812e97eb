//! What can go wrong on the way to a running system.

use std::path::PathBuf;
use std::time::Duration;

/// Why `order-dev` gave up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The operating system refused.
    #[error("could not {action}")]
    Io {
        /// What was attempted, as it reads after "could not".
        action: String,
        /// The system's answer.
        #[source]
        source: std::io::Error,
    },
    /// Programs are missing and could not be installed.
    #[error("{0}")]
    Missing(String),
    /// A port is taken.
    #[error("port {port} for {what} is already in use: stop what uses it, or {advice}")]
    PortTaken {
        /// The port.
        port: u16,
        /// Who wanted it.
        what: &'static str,
        /// How to take another one.
        advice: &'static str,
    },
    /// Another `order-dev` works on the same data.
    #[error("another order-dev is using {}: stop it first, or give --data another directory", .0.display())]
    InUse(PathBuf),
    /// A program that was to run to its end failed.
    #[error("{program} failed ({status}):\n{output}")]
    Failed {
        /// Which.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its last lines.
        output: String,
    },
    /// A child ended while it was being waited for.
    #[error("{name} ended ({status}); the end of {}:\n{tail}", .log.display())]
    Died {
        /// Which child.
        name: &'static str,
        /// How it ended.
        status: std::process::ExitStatus,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A child did not become ready.
    #[error("{name} was not ready after {} s; the end of {}:\n{tail}", .within.as_secs(), .log.display())]
    NotReady {
        /// Which child.
        name: &'static str,
        /// How long it had.
        within: Duration,
        /// Its log.
        log: PathBuf,
        /// The last lines of it.
        tail: String,
    },
    /// A child died again and again.
    #[error("{name} died {times} times in a row; its log is {}", .log.display())]
    KeepsDying {
        /// Which child.
        name: &'static str,
        /// How often.
        times: u32,
        /// Its log.
        log: PathBuf,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Usage(String),
}

/// Names what was attempted when the system says no.
pub(crate) trait Attempt<T> {
    /// `action` completes the sentence "could not …".
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Attempt<T> for std::io::Result<T> {
    fn attempt(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io { action: action(), source })
    }
}
