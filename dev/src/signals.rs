//! The signals that mean "stop".

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::{Attempt as _, Error};

/// Ctrl-C, a polite kill, and the closing of the terminal.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
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
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
