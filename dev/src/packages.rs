//! Finding the programs we need, and installing Debian's packages when they are missing.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};
use tokio::process::Command;

use crate::child;
use crate::config;
use crate::error::Error;
use crate::terminal::say;

/// Installs packages. Debian's PostgreSQL package would also create a cluster and start it as a service
/// of the machine; a setting that is there only meanwhile keeps it from that.
const INSTALL: &str = r#"
set -eu
export DEBIAN_FRONTEND=noninteractive
settings=/etc/postgresql-common/createcluster.d
mkdir -p "$settings"
trap 'rm -f "$settings/order-dev.conf"' EXIT
echo 'create_main_cluster = false' > "$settings/order-dev.conf"
apt-get -qq -o DPkg::Lock::Timeout=120 update
apt-get -qq -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "$@"
"#;

/// Something we need, where it comes from, and what to say when it cannot be had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    /// What it is.
    pub(crate) what: &'static str,
    /// Debian's packages that bring it.
    pub(crate) packages: &'static [&'static str],
    /// What a person does where there is no Debian, or no permission.
    pub(crate) by_hand: &'static str,
}

/// The program of that name on the search path.
pub(crate) fn find(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let program = Path::new(program.as_ref());
    config::search_path().into_iter().map(|directory| directory.join(program)).find(|path| is_program(path))
}

/// Whether this is a file that we may run.
pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file() && access(path, AccessFlags::X_OK).is_ok()
}

/// Installs what is missing, all at once.
///
/// # Errors
/// One line that says what to install, when this is not Debian or we may not install packages.
pub(crate) async fn install(needs: &[Need]) -> Result<(), Error> {
    if needs.is_empty() {
        return Ok(());
    }
    let by_hand = || {
        let lines: Vec<String> =
            needs.iter().map(|need| format!("{} is missing: {}", need.what, need.by_hand)).collect();
        Error::Missing(lines.join("; "))
    };
    let Some(shell) = find("apt-get").and_then(|_| find("sh")) else { return Err(by_hand()) };
    let mut command = if geteuid().is_root() {
        Command::new(shell)
    } else {
        let sudo = find("sudo").ok_or_else(by_hand)?;
        let mut probe = Command::new(&sudo);
        probe.args(["-n", "true"]);
        child::run(probe).await.map_err(|_refused| by_hand())?;
        let mut command = Command::new(sudo);
        command.arg("-n").arg(shell);
        command
    };
    let packages: Vec<&str> = needs.iter().flat_map(|need| need.packages.iter().copied()).collect();
    say(format!("installing {} …", packages.join(" ")));
    command.args(["-c", INSTALL, "order-dev"]).args(&packages);
    child::run(command).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_found_and_nonsense_is_not() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
