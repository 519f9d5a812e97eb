//! The signals that mean "stop".

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::error::{Attempt as _, Error};

/// One request to stop often comes as several signals: `timeout` signals the child and then its group, a
/// closing terminal is announced by the kernel and by the shell. Only a later one is a second request.
const SAME_REQUEST: Duration = Duration::from_secs(1);

/// Ctrl-C, a polite kill, and the closing of the terminal.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    last: Option<Instant>,
}

impl Signals {
    /// From here on these signals no longer end the program; `next` tells of them.
    ///
    /// # Errors
    /// When the system will not have it.
    pub(crate) fn listen() -> Result<Self, Error> {
        let of = |kind| signal(kind).attempt(|| "listen for signals".to_owned());
        Ok(Self {
            interrupt: of(SignalKind::interrupt())?,
            terminate: of(SignalKind::terminate())?,
            hang_up: of(SignalKind::hangup())?,
            last: None,
        })
    }

    /// Waits for the next request to stop.
    pub(crate) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                _ = self.hang_up.recv() => {}
            }
            if self.last.is_none_or(|last| last.elapsed() >= SAME_REQUEST) {
                self.last = Some(Instant::now());
                return;
            }
        }
    }
}
