//! Showing a log's warnings and errors on the terminal; the rest stays in the file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::terminal::say;

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How many lines of one look are shown; the rest is counted.
const LINES_MAX: usize = 5;
/// How much of the log one look reads.
const BYTES_MAX: u64 = 256 * 1024;

/// Follows a log for as long as it lives.
#[derive(Debug)]
pub(crate) struct Follower {
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows what is written from now on.
    pub(crate) fn at_end_of(name: &'static str, log: &Path) -> Self {
        let position = std::fs::metadata(log).map_or(0, |log| log.len());
        Self { task: tokio::spawn(follow(name, log.to_path_buf(), position)) }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(name: &'static str, log: PathBuf, mut position: u64) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // A log that cannot be read for now is looked at again.
        let Ok(text) = read_from(&log, &mut position) else { continue };
        let worth: Vec<&str> = text.lines().filter(|line| deserves_attention(line)).collect();
        for line in worth.iter().take(LINES_MAX) {
            say(format!("{name}: {}", line.trim()));
        }
        if worth.len() > LINES_MAX {
            say(format!("{name}: … and {} more in {}", worth.len() - LINES_MAX, log.display()));
        }
    }
}

/// The complete lines from `position` on, which moves behind them.
fn read_from(log: &Path, position: &mut u64) -> io::Result<String> {
    let mut file = File::open(log)?;
    if file.metadata()?.len() < *position {
        *position = 0; // It was set aside and begun anew.
    }
    file.seek(SeekFrom::Start(*position))?;
    let mut bytes = Vec::new();
    let read = file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
        bytes.truncate(end + 1);
    } else if u64::try_from(read).is_ok_and(|read| read < BYTES_MAX) {
        bytes.clear(); // The line is still being written; one longer than a whole look is passed on in pieces.
    }
    *position += u64::try_from(bytes.len()).unwrap_or(0);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn deserves_attention(line: &str) -> bool {
    [" WARN ", " ERROR ", "\"WARN\"", "\"ERROR\"", "panicked at"].iter().any(|mark| line.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_waits_for_its_end() {
        let log = crate::config::temp_dir().join(format!("order-dev-follow-{}.log", std::process::id()));
        let mut position = 0;
        std::fs::write(&log, "one\ntwo").unwrap();
        assert_eq!(read_from(&log, &mut position).unwrap(), "one\n");
        std::fs::write(&log, "one\ntwo three\n").unwrap();
        assert_eq!(read_from(&log, &mut position).unwrap(), "two three\n");
        std::fs::write(&log, "new\n").unwrap();
        assert_eq!(read_from(&log, &mut position).unwrap(), "new\n");
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn warnings_stand_out_in_both_formats() {
        assert!(deserves_attention("2025-01-01T00:00:00Z  WARN relay: lease lost"));
        assert!(deserves_attention(r#"{"level":"ERROR","message":"x"}"#));
        assert!(!deserves_attention("2025-01-01T00:00:00Z  INFO listening"));
    }
}
