//! Which process a pid file means.
//!
//! A number alone is not enough: after a crash or a restart of the machine it may belong to a stranger.
//! Together with the time the process began and the id of this boot it is unmistakable (Linux; elsewhere
//! a pid file is never believed, and nothing is stopped by it).

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::error::{Attempt as _, Error};
use crate::terminal::say;

/// How often a process that we did not start is looked at while it ends.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// One process, distinct from every other that had or will have its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: i32,
    started_ticks: u64,
    boot: String,
}

impl Identity {
    /// The process that has this number now; none when it is gone or only waits to be reaped.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let (state, started_ticks) = state_and_start(&stat)?;
        (!matches!(state, 'Z' | 'X')).then_some(Self { pid, started_ticks, boot })
    }

    /// Whether this very process still runs.
    pub(crate) fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Reads a pid file; none when there is none or it is not one of ours.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// Writes the pid file.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Error> {
        fs::write(path, format!("{self}\n")).attempt(|| format!("write {}", path.display()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.pid, self.started_ticks, self.boot)
    }
}

impl FromStr for Identity {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split_whitespace();
        let mut next = || words.next().ok_or(());
        let pid = next()?.parse().ok().filter(|pid| *pid > 1).ok_or(())?;
        let started_ticks = next()?.parse().ok().ok_or(())?;
        Ok(Self { pid, started_ticks, boot: next()?.to_owned() })
    }
}

/// The state letter and the start time out of `/proc/PID/stat` (fields 3 and 22 of proc(5)).
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    // The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// Ends what an earlier run left behind: asks first, and after `within` insists.
pub(crate) async fn stop_leftover(name: &str, pid_file: &Path, signal: Signal, within: Duration) {
    let Some(identity) = Identity::read(pid_file).filter(Identity::is_alive) else { return };
    say(format!("{name} of an earlier run is still there (pid {}): stopping it", identity.pid));
    // Failure means that it has just ended by itself.
    kill(Pid::from_raw(identity.pid), signal).ok();
    if !gone(&identity, within).await {
        kill(Pid::from_raw(identity.pid), Signal::SIGKILL).ok();
        gone(&identity, within).await;
    }
}

async fn gone(identity: &Identity, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while identity.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(LOOK_AGAIN).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 98765 1 2 3";
        assert_eq!(state_and_start(stat), Some(('S', 98_765)));
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = Identity::of(pid).unwrap();
        assert!(me.is_alive());
        assert_eq!(me.to_string().parse(), Ok(me.clone()));
        let stranger = Identity { started_ticks: me.started_ticks + 1, ..me };
        assert!(!stranger.is_alive());
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_is_stopped() {
        let pid_file = crate::config::temp_dir().join(format!("order-dev-leftover-{}.pid", std::process::id()));
        let mut left = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        let identity = Identity::of(i32::try_from(left.id().unwrap()).unwrap()).unwrap();
        identity.write(&pid_file).unwrap();
        stop_leftover("a sleeper", &pid_file, Signal::SIGTERM, Duration::from_secs(20)).await;
        assert!(!identity.is_alive());
        assert!(!left.wait().await.unwrap().success());
        fs::remove_file(pid_file).unwrap();
    }

    #[test]
    fn a_foreign_pid_file_is_not_believed() {
        assert_eq!("1 2 boot".parse::<Identity>(), Err(()));
        assert_eq!("4711".parse::<Identity>(), Err(()));
    }
}
