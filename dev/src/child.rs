//! One child process: a process group of its own, a log file, a pid file, and a stop with a deadline.
//!
//! The group keeps a terminal's Ctrl-C away from the child, so that we decide in which order things end.
//! Should we be killed without a chance to do that, the kernel sends the child its stop signal
//! (`setpriv --pdeathsig`, where util-linux is there), and the next run waits for it by its pid file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::account::Account;
use crate::error::{Attempt as _, Error};
use crate::identity::Identity;
use crate::packages;

/// How many lines of a log are shown when its child fails.
const TAIL_LINES: usize = 20;
/// How much of the end of a log is read to find them.
const TAIL_BYTES_MAX: u64 = 32 * 1024;
/// A log that has grown beyond this is set aside at the next start.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How often a child that is starting is asked whether it is ready.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long a killed process may take to disappear.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// How to start a child, and how to stop it.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// What it is called on the terminal.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// What its environment has on top of ours.
    pub(crate) envs: Vec<(&'static str, OsString)>,
    /// Whom it runs as, when not as ourselves.
    pub(crate) account: Option<Account>,
    /// Where it works.
    pub(crate) directory: PathBuf,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Where it can be found again.
    pub(crate) pid_file: PathBuf,
    /// The signal that asks it to end in order.
    pub(crate) stop_signal: Signal,
    /// How long that may take.
    pub(crate) stop_within: Duration,
}

/// A child that was started.
#[derive(Debug)]
pub(crate) struct Process {
    spec: Spec,
    child: Child,
    pid: Pid,
}

impl Spec {
    /// Starts it.
    ///
    /// # Errors
    /// When the log cannot be opened or the program cannot be run.
    pub(crate) fn spawn(&self) -> Result<Process, Error> {
        if fs::metadata(&self.log).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            let aside = self.log.with_extension("log.old");
            fs::rename(&self.log, aside).attempt(|| format!("set {} aside", self.log.display()))?;
        }
        let open = || OpenOptions::new().create(true).append(true).open(&self.log);
        let (stdout, stderr) = open()
            .and_then(|log| Ok((log.try_clone()?, log)))
            .attempt(|| format!("open the log {}", self.log.display()))?;
        let mut command = self.command();
        command.args(&self.args).envs(self.envs.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.directory).process_group(0);
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        if let Some(account) = &self.account {
            command.uid(account.uid).gid(account.gid);
        }
        let child = command.spawn().attempt(|| format!("start {} ({})", self.name, self.program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        if let Some(identity) = Identity::of(pid) {
            identity.write(&self.pid_file)?;
        }
        Ok(Process { spec: self.clone(), child, pid: Pid::from_raw(pid) })
    }

    fn command(&self) -> Command {
        match packages::find("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                let signal = self.stop_signal.as_str().trim_start_matches("SIG");
                command.args(["--pdeathsig", signal, "--"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        }
    }

    /// The last lines of its log.
    pub(crate) fn tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("  (the log cannot be read: {error})"))
    }
}

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for it to end by itself. Dropping the future loses nothing.
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus, Error> {
        self.child.wait().await.attempt(|| format!("wait for {}", self.spec.name))
    }

    /// Asks until it answers; gives up when it ends first or `within` has passed.
    pub(crate) async fn ready(&mut self, within: Duration, answers: impl AsyncFn() -> bool) -> Result<(), Error> {
        let asking = async {
            while !answers().await {
                sleep(ASK_AGAIN).await;
            }
        };
        tokio::select! {
            () = asking => Ok(()),
            status = self.child.wait() => {
                let status = status.attempt(|| format!("wait for {}", self.spec.name))?;
                let (name, log, tail) = (self.spec.name, self.spec.log.clone(), self.spec.tail());
                Err(Error::Died { name, status, log, tail })
            }
            () = sleep(within) => {
                let (name, log, tail) = (self.spec.name, self.spec.log.clone(), self.spec.tail());
                Err(Error::NotReady { name, within, log, tail })
            }
        }
    }

    /// Asks it to end, and kills its whole group when it does not. Returns how long that took, and
    /// whether it ended of its own accord.
    pub(crate) async fn stop(&mut self) -> (Duration, bool) {
        let begun = Instant::now();
        if let Ok(Some(_)) = self.child.try_wait() {
            self.forget();
            return (Duration::ZERO, true);
        }
        // An error means that it ended between the two calls.
        kill(self.pid, self.spec.stop_signal).ok();
        let obeyed = timeout(self.spec.stop_within, self.child.wait()).await.is_ok();
        if !obeyed {
            self.kill();
            timeout(KILLED_WITHIN, self.child.wait()).await.ok();
        }
        self.forget();
        (begun.elapsed(), obeyed)
    }

    /// Ends the whole group at once.
    pub(crate) fn kill(&self) {
        killpg(self.pid, Signal::SIGKILL).ok();
    }

    fn forget(&self) {
        fs::remove_file(&self.spec.pid_file).ok();
    }
}

/// Runs a program to its end; its output is only seen when it fails.
///
/// # Errors
/// When it cannot be run or ends with another status than 0.
pub(crate) async fn run(mut command: Command) -> Result<String, Error> {
    let program = Path::new(command.as_std().get_program()).display().to_string();
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.attempt(|| format!("run {program}"))?;
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(Error::Failed { program, status: output.status, output: last_lines(&text) })
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(TAIL_BYTES_MAX).read_to_end(&mut end)?;
    Ok(last_lines(&String::from_utf8_lossy(&end)))
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let kept = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default();
    kept.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(directory: &Path, script: &str) -> Spec {
        Spec {
            name: "a shell",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            envs: Vec::new(),
            account: None,
            directory: directory.to_path_buf(),
            log: directory.join("shell.log"),
            pid_file: directory.join("shell.pid"),
            stop_signal: Signal::SIGTERM,
            stop_within: Duration::from_secs(20),
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let directory = crate::config::temp_dir().join(format!("order-dev-{name}-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[tokio::test]
    async fn a_child_is_asked_to_end_and_leaves_no_pid_file() {
        let directory = scratch("stop");
        let script = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
        let spec = shell(&directory, script);
        let mut process = spec.spawn().unwrap();
        let log = spec.log.clone();
        let ready = async || fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"));
        process.ready(Duration::from_secs(20), ready).await.unwrap();
        assert!(Identity::read(&spec.pid_file).unwrap().is_alive());
        let (_, obeyed) = process.stop().await;
        assert!(obeyed);
        assert!(!spec.pid_file.exists());
        assert!(spec.tail().contains("bye"), "{}", spec.tail());
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_child_that_does_not_listen_is_killed() {
        let directory = scratch("kill");
        let spec = Spec {
            stop_within: Duration::from_millis(100),
            ..shell(&directory, "trap '' TERM; echo ready; while :; do sleep 0.05; done")
        };
        let mut process = spec.spawn().unwrap();
        let log = spec.log.clone();
        let ready = async || fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"));
        process.ready(Duration::from_secs(20), ready).await.unwrap();
        let (_, obeyed) = process.stop().await;
        assert!(!obeyed);
        fs::remove_dir_all(directory).unwrap();
    }

    #[tokio::test]
    async fn a_child_that_dies_while_starting_is_reported_with_its_last_lines() {
        let directory = scratch("die");
        let mut process = shell(&directory, "echo no such thing >&2; exit 3").spawn().unwrap();
        let error = process.ready(Duration::from_secs(20), async || false).await.unwrap_err();
        assert!(matches!(&error, Error::Died { tail, .. } if tail.contains("no such thing")), "{error}");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let text = (1..=50).map(|line| format!("line {line}\n")).collect::<String>();
        let kept = last_lines(&text);
        assert_eq!(kept.lines().count(), TAIL_LINES);
        assert!(kept.ends_with("line 50"));
    }
}
