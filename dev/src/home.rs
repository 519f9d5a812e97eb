//! Where a run keeps its files.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::statvfs::statvfs;
use tokio::process::Command;

use crate::account::Account;
use crate::config;
use crate::error::{Attempt as _, Error};
use crate::identity::Identity;

/// A throw-away run lives in memory when there is this much of it.
const SCRATCH_BYTES_MIN: u64 = 4 * 1024 * 1024 * 1024;
/// What the names of throw-away directories begin with.
const SCRATCH_PREFIX: &str = "order-test-";

/// The data directory, which one run at a time uses.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    /// Released when it is closed, however we end.
    _lock: File,
}

impl Home {
    /// Takes the data directory, creating it where it is not there yet.
    ///
    /// # Errors
    /// When another run uses it.
    pub(crate) fn take(named: Option<&Path>) -> Result<Self, Error> {
        let path = named.map_or_else(|| config::checkout().join(".data"), Path::to_path_buf);
        let logs = path.join("logs");
        fs::create_dir_all(&logs).attempt(|| format!("create {}", logs.display()))?;
        let path = fs::canonicalize(&path).attempt(|| format!("find {}", path.display()))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).attempt(|| format!("open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse(path)),
            Err(TryLockError::Error(source)) => Err(source).attempt(|| format!("lock {}", path.display())),
        }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Where a file system in memory is mounted.
const MEMORY: &str = "/dev/shm";

/// What a scratch directory lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Memory if there is room, else a disk: tests care for what is written, not how long that takes.
    Memory,
    /// A disk, whose flushes cost what they cost: benchmarks.
    Disk,
}

/// A directory that is removed at the end of the run.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one where the database's user gets to, and removes those that killed runs left behind.
    ///
    /// # Errors
    /// When no place will do.
    pub(crate) async fn create(medium: Medium, account: Option<&Account>) -> Result<Self, Error> {
        let memory = Some(PathBuf::from(MEMORY)).filter(|_| medium == Medium::Memory);
        let places = memory.into_iter().chain([config::temp_dir(), PathBuf::from("/var/tmp")]);
        for place in places {
            sweep(&place);
            let has_room =
                place != Path::new(MEMORY) || free_bytes(&place).is_some_and(|free| free >= SCRATCH_BYTES_MIN);
            let pid = i32::try_from(std::process::id()).unwrap_or_default();
            let Some(identity) = Identity::of(pid) else { break };
            let path = place.join(format!("{SCRATCH_PREFIX}{}", identity.to_string().replace(' ', "_")));
            if !has_room || fs::create_dir_all(path.join("logs")).is_err() {
                continue;
            }
            let scratch = Self { path };
            if may_execute(account, &scratch.path).await {
                return Ok(scratch);
            }
        }
        Err(Error::Missing("no temporary directory that the database's user can reach: set TMPDIR".to_owned()))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

async fn may_execute(account: Option<&Account>, path: &Path) -> bool {
    let mut list = Command::new("ls");
    list.arg(path).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(account) = account {
        list.uid(account.uid).gid(account.gid);
    }
    list.status().await.is_ok_and(|status| status.success())
}

fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(SCRATCH_PREFIX));
        let owner: Option<Identity> = owner.and_then(|text| text.replace('_', " ").parse().ok());
        if owner.is_some_and(|owner| !owner.is_alive()) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

fn free_bytes(place: &Path) -> Option<u64> {
    let figures = statvfs(place).ok()?;
    Some(figures.blocks_available().saturating_mul(figures.fragment_size()))
}
