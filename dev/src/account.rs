//! Whom the database runs as: PostgreSQL refuses to run as root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Gid, Uid, User, chown, geteuid};
use tokio::process::Command;

use crate::error::{Attempt as _, Error};
use crate::terminal::say;

/// Where the database goes when its user cannot reach the data directory.
const ELSEWHERE: &str = "/var/lib/order-service";
/// The users that are tried, best first.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// A user of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The login name.
    pub(crate) name: String,
    /// The user id.
    pub(crate) uid: u32,
    /// The primary group.
    pub(crate) gid: u32,
}

/// The account for the database; none when we are a normal user and it can simply be ourselves.
///
/// # Errors
/// When we are root and there is nobody else.
pub(crate) fn for_database() -> Result<Option<Account>, Error> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in CANDIDATES {
        let user = User::from_name(name).map_err(std::io::Error::from);
        if let Some(user) = user.attempt(|| format!("look up the user {name}"))? {
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            return Ok(Some(Account { name: user.name, uid, gid }));
        }
    }
    Err(Error::Missing(format!("PostgreSQL will not run as root: create the user {}", CANDIDATES[0])))
}

impl Account {
    /// Makes a directory that this user owns and nobody else reads.
    pub(crate) fn own(&self, directory: &Path) -> Result<(), Error> {
        fs::create_dir_all(directory).attempt(|| format!("create {}", directory.display()))?;
        chown(directory, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
            .map_err(std::io::Error::from)
            .attempt(|| format!("give {} to {}", directory.display(), self.name))
    }

    /// Whether this user gets as far as this directory. Asked of the kernel, because modes are not
    /// the whole truth.
    async fn reaches(&self, directory: &Path) -> bool {
        let mut test = Command::new("/usr/bin/test");
        test.arg("-x").arg(directory).uid(self.uid).gid(self.gid).current_dir("/").stdin(Stdio::null());
        test.status().await.is_ok_and(|status| status.success())
    }
}

/// The directory below `data` that the database's user can work in. Where it cannot reach that (a checkout
/// below /root, say), the directory is elsewhere, its name made from `data`'s, and `data` holds a link to it.
///
/// # Errors
/// When neither place can be made.
pub(crate) async fn workplace(data: &Path, name: &str, account: Option<&Account>) -> Result<PathBuf, Error> {
    let here = data.join(name);
    let Some(account) = account else {
        fs::create_dir_all(&here).attempt(|| format!("create {}", here.display()))?;
        return Ok(here);
    };
    if !here.is_symlink() && account.reaches(data).await && account.own(&here).is_ok() {
        return Ok(here);
    }
    let canonical = fs::canonicalize(data).attempt(|| format!("find {}", data.display()))?;
    let key = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, canonical.as_os_str().as_encoded_bytes());
    let elsewhere = Path::new(ELSEWHERE).join(key.simple().to_string()).join(name);
    if elsewhere.exists() && !here.exists() {
        say(format!(
            "the database of an earlier {} is still in {}: going on with it",
            data.display(),
            elsewhere.display()
        ));
    }
    account.own(&elsewhere)?;
    if fs::read_link(&here).ok().as_deref() != Some(&elsewhere) {
        // A directory is only here when its creation got stuck half-way: remove_dir spares one with content.
        fs::remove_file(&here).or_else(|_| fs::remove_dir(&here)).ok();
        std::os::unix::fs::symlink(&elsewhere, &here).attempt(|| format!("link {}", here.display()))?;
    }
    Ok(elsewhere)
}
