//! Takes the write-ahead log over into the file, on a thread and a connection of its own: no commit waits for the disk
//! meanwhile. One that did would be seen by every reader who waits for it.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::BUSY_TIMEOUT;
use crate::store::Error;

/// How long commits gather before they are taken over: a page that several of them wrote is taken over once.
const GATHER: Duration = Duration::from_millis(500);

/// While it lives, what is committed into a file is taken over.
#[derive(Debug)]
pub(super) struct Checkpointer {
    commits: SyncSender<()>,
    thread: JoinHandle<()>,
}

/// Tells that there is something to take over.
#[derive(Debug, Clone)]
pub(super) struct Commits(SyncSender<()>);

impl Commits {
    pub(super) fn tell(&self) {
        // One that was told and not looked at yet will do.
        self.0.try_send(()).ok();
    }
}

impl Checkpointer {
    pub(super) fn start(file: &Path) -> Result<Self, Error> {
        let (commits, told) = sync_channel(1);
        let file = PathBuf::from(file);
        let thread = thread::Builder::new().name("sqlite-checkpoint".to_owned());
        let thread = thread
            .spawn(move || {
                if let Err(error) = take_over(&file, &told) {
                    // The projector's own connection does it from 64 MiB on.
                    tracing::warn!(%error, file = %file.display(), "the write-ahead log is not taken over beside the projector");
                }
            })
            .map_err(|error| Error::Unusable { reason: format!("no thread for checkpoints: {error}") })?;
        Ok(Self { commits, thread })
    }

    pub(super) fn commits(&self) -> Commits {
        Commits(self.commits.clone())
    }

    /// Ends, after what is being taken over, and closes its connection. The writer's takes over the rest when it is closed.
    pub(super) fn stop(self) {
        drop(self.commits);
        if self.thread.join().is_err() {
            tracing::error!("the checkpoints ended with a panic");
        }
    }
}

fn take_over(file: &Path, told: &Receiver<()>) -> Result<(), rusqlite::Error> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch("pragma synchronous = normal; pragma mmap_size = 0")?;
    while told.recv().is_ok() {
        if !gather(told) {
            break;
        }
        // Passive: it waits for nobody, and what a reader still needs stays for the next time.
        connection.query_row("pragma wal_checkpoint(passive)", [], |_row| Ok(()))?;
    }
    Ok(())
}

/// False when there is nobody any more to take anything over for.
fn gather(told: &Receiver<()>) -> bool {
    let until = Instant::now() + GATHER;
    loop {
        match told.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_committed_reaches_the_file_while_the_writer_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.db");
        let writer = super::super::connection::connect(&file).unwrap();
        writer.execute_batch("create table t (n integer); pragma wal_checkpoint(truncate)").unwrap();
        let before = fs::metadata(&file).unwrap().len();
        let checkpointer = Checkpointer::start(&file).unwrap();
        writer
            .execute_batch("insert into t with recursive c(n) as (select 1 union all select n + 1 from c where n < 100000) select n from c")
            .unwrap();
        checkpointer.commits().tell();
        let begun = Instant::now();
        while fs::metadata(&file).unwrap().len() <= before {
            assert!(begun.elapsed() < Duration::from_secs(10), "the file does not grow");
            thread::yield_now();
        }
        checkpointer.stop();
    }
}
