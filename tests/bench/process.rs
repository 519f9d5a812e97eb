//! What a process costs, and services in processes of their own: this program again, in another role.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The kernel's unit of CPU time: a hundredth of a second on every Linux that we know.
const TICKS_PER_S: f64 = 100.0;

/// What a process took meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Its share of all cores.
    pub(crate) cpu_percent: f64,
    /// The most memory it has ever had.
    pub(crate) memory_mib: f64,
}

impl Cost {
    /// The middle of several rounds; the largest memory.
    pub(crate) fn median(costs: &[Self]) -> Self {
        Self {
            cpu_percent: crate::report::median(costs.iter().map(|cost| cost.cpu_percent).collect()),
            memory_mib: costs.iter().map(|cost| cost.memory_mib).fold(0.0, f64::max),
        }
    }
}

/// Watches what a process takes from now on.
#[derive(Debug)]
pub(crate) struct Meter {
    pid: u32,
    started: Instant,
    cpu_s: f64,
}

impl Meter {
    pub(crate) fn of(pid: u32) -> Self {
        Self { pid, started: Instant::now(), cpu_s: cpu_s(pid) }
    }

    /// This process, from now on; its peak of memory begins anew.
    pub(crate) fn own() -> Self {
        // Where the kernel refuses, the peak is that of the whole run.
        fs::write("/proc/self/clear_refs", "5").ok();
        Self::of(std::process::id())
    }

    pub(crate) fn read(&self) -> Cost {
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let share = (cpu_s(self.pid) - self.cpu_s) / self.started.elapsed().as_secs_f64() / cores;
        Cost { cpu_percent: share * 100.0, memory_mib: memory_mib(self.pid) }
    }
}

fn cpu_s(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name in parentheses: user and system time are the 12th and 13th field.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

fn memory_mib(pid: u32) -> f64 {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or_default() / 1024.0
}

/// A service that runs beside us; it is ended when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) addr: SocketAddr,
}

impl Process {
    /// Starts this program in a role, and waits until it says where it listens.
    pub(crate) fn start(role: &[&str]) -> Self {
        let words = tempfile::NamedTempFile::new().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(role)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(words.path()).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.trim().parse().unwrap_or_else(|_nothing| {
            panic!("{role:?} did not start: {}", fs::read_to_string(words.path()).unwrap_or_default())
        });
        Self { child, addr }
    }

    pub(crate) fn meter(&self) -> Meter {
        Meter::of(self.child.id())
    }

    /// What it has in memory now, in MiB.
    pub(crate) fn resident_mib(&self) -> f64 {
        status_mib(self.child.id(), "VmRSS:")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
        }
        self.child.wait().ok();
    }
}
