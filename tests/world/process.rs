//! A program under test as a child process: started, asked, signalled and stopped by its own pid.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use chassis::testkit::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a service may take from its start to being ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a service may take to drain.
pub(crate) const DRAINED_WITHIN: Duration = Duration::from_secs(25);
/// How long its metrics may take.
const METRICS_WITHIN: Duration = Duration::from_secs(5);
/// How many lines of a log a failure prints.
const TAIL_LINES: usize = 60;

/// How to start a program.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// What it is called in failures; its log is named after it.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) envs: Vec<(String, String)>,
    /// Where it listens.
    pub(crate) port: u16,
    /// Where its log goes.
    pub(crate) directory: PathBuf,
}

/// A program that runs, or ran, or will run again on the same port and with the same log.
#[derive(Debug)]
pub(crate) struct Service {
    spec: Spec,
    child: Option<Child>,
    http: reqwest::Client,
}

impl Service {
    /// One that is not started.
    pub(crate) fn new(spec: Spec, http: reqwest::Client) -> Self {
        Self { spec, child: None, http }
    }

    /// Sets a variable of its environment, from its next start on.
    pub(crate) fn set(&mut self, variable: &str, value: &str) {
        self.spec.envs.retain(|(name, _)| name != variable);
        self.spec.envs.push((variable.to_owned(), value.to_owned()));
    }

    /// A variable of its environment.
    pub(crate) fn variable(&self, variable: &str) -> &str {
        let found = self.spec.envs.iter().find(|(name, _)| name == variable);
        found.map_or_else(|| panic!("{} has no {variable}", self.spec.name), |(_, value)| value)
    }

    /// Another run of the same program in the same environment, not started.
    pub(crate) fn beside(&self, name: &str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        let spec = Spec { name: format!("{}-{name}", self.spec.name), args, ..self.spec.clone() };
        Self::new(spec, self.http.clone())
    }

    /// Runs to its end, as [`run`] does.
    pub(crate) async fn runs_to_its_end(&self) -> (Option<i32>, String, String) {
        let spec = self.spec.clone();
        tokio::task::spawn_blocking(move || run(&spec)).await.unwrap()
    }

    /// The root of its API.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.spec.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.spec.port
    }

    /// Starts it without waiting for anything.
    pub(crate) fn launch(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.spec.name);
        let child = command(&self.spec).and_then(|mut command| command.spawn());
        self.child = Some(child.unwrap_or_else(|error| panic!("{} cannot be started: {error}", self.spec.name)));
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(&mut self) {
        self.launch();
        self.is_ready().await;
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn is_ready(&mut self) {
        let name = self.spec.name.clone();
        let url = format!("{}/health/ready", self.url());
        let http = self.http.clone();
        let service = &mut *self;
        eventually(READY_WITHIN, &format!("{name} is ready"), || {
            let ended = service.ended();
            let asked = http.get(&url).send();
            async move {
                assert!(ended.is_none(), "it has ended: {ended:?}");
                match asked.await {
                    Ok(answer) if answer.status().is_success() => Ok(()),
                    Ok(answer) => Err(answer.text().await.unwrap_or_default()),
                    Err(error) => Err(error.to_string()),
                }
            }
        })
        .await;
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().unwrap())
    }

    /// Waits for its end.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let name = self.spec.name.clone();
        let service = &mut *self;
        let status = eventually(within, &format!("{name} ends"), || {
            std::future::ready(service.ended().ok_or_else(|| "it runs".to_owned()))
        })
        .await;
        self.child = None;
        status
    }

    /// `kill -9`, and not a moment's notice.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap_or_else(|| panic!("{} does not run", self.spec.name));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM; the drained process must end well.
    pub(crate) async fn drain(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.exit(DRAINED_WITHIN).await;
        assert!(status.success(), "{} ended with {status} after SIGTERM", self.spec.name);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&mut self, signal: Signal) {
        let child = self.child.as_ref().unwrap_or_else(|| panic!("{} does not run", self.spec.name));
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    }

    /// The value of one of its metrics, over all labels; none while nobody has counted.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let answer = self.http.get(format!("{}/metrics", self.url())).timeout(METRICS_WITHIN).send().await.ok()?;
        let text = answer.text().await.ok()?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            // Another metric's name may begin like this one.
            rest.starts_with(['{', ' ']).then(|| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        });
        values.reduce(|sum, value| sum + value)
    }

    pub(crate) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// Everything it has written so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(log_path(&self.spec)).unwrap_or_default()
    }

    /// The end of its log, for a failure.
    fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        format!("--- {} ---\n{}\n", self.spec.name, tail.join("\n"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.tail());
        }
        if let Some(mut child) = self.child.take() {
            // A stopped process dies of SIGKILL as well; one that is gone already is no reason to fail.
            let _gone = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Runs a program to its end. Returns its exit code with what it wrote to standard output and standard error.
pub(crate) fn run(spec: &Spec) -> (Option<i32>, String, String) {
    let output = command(spec).unwrap().stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn command(spec: &Spec) -> io::Result<Command> {
    let setpriv = Path::new("/usr/bin/setpriv");
    let mut command = if setpriv.exists() {
        // Should the tests be killed, so are their children: the kernel sees to it.
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&spec.program);
        command
    } else {
        Command::new(&spec.program)
    };
    let log: File = OpenOptions::new().create(true).append(true).open(log_path(spec))?;
    command.args(&spec.args).env_clear().env("NO_COLOR", "1").env("PATH", "/usr/bin:/bin");
    command.envs(spec.envs.iter().map(|(name, value)| (name, value)));
    command.current_dir(&spec.directory).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

fn log_path(spec: &Spec) -> PathBuf {
    spec.directory.join(format!("{}.log", spec.name))
}
