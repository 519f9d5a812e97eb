//! A private PostgreSQL from the system's programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::account::{self, Account};
use crate::child::{self, Spec};
use crate::error::{Attempt as _, Error};
use crate::identity;
use crate::packages::{self, Need};
use crate::ports;
use crate::stack::{Member, Readiness};

/// The port that is tried first; 5432 is left to the machine's own server.
const PORT_PREFERRED: u16 = 5433;
/// Where Debian keeps its versions, one directory each.
const DEBIAN: &str = "/usr/lib/postgresql";
/// The database that every new server has.
pub(crate) const OWN_DATABASE: &str = "postgres";
/// The superuser of the private server.
const SUPERUSER: &str = "postgres";
/// A fast shutdown rolls back what is open and writes a checkpoint.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Starting may have to replay the log after a crash.
const START_WITHIN: Duration = Duration::from_secs(120);

/// What the machine lacks when there is no PostgreSQL.
const NEED: Need = Need {
    what: "PostgreSQL 14 or newer",
    packages: &["postgresql"],
    by_hand: "install the package postgresql (macOS: brew install postgresql), or set PG_BIN to its programs or \
              COMMAND_DATABASE_URL to a server",
};

/// How a server is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Wish<'a> {
    /// The directory for its data, its log and its pid file.
    pub(crate) home: &'a Path,
    /// Where its programs are, when that was said.
    pub(crate) bin: Option<&'a Path>,
    /// Its port, when that was said; 0 for any.
    pub(crate) port: Option<u16>,
    /// The database to create where there is no data yet.
    pub(crate) database: &'a str,
    /// How many connections it allows.
    pub(crate) connections_max: u16,
}

/// A server that is ready to be started.
#[derive(Debug)]
pub(crate) struct Postgres {
    spec: Spec,
    port: u16,
    version: String,
}

/// What has to be installed first.
pub(crate) fn needs(bin: Option<&Path>) -> Vec<Need> {
    if installations(bin).is_empty() { vec![NEED] } else { Vec::new() }
}

impl Postgres {
    /// Ends what an earlier run left, chooses a port, and creates the data where there is none.
    ///
    /// # Errors
    /// When the programs are missing or do not fit the data, or the data cannot be created.
    pub(crate) async fn prepare(wish: &Wish<'_>) -> Result<Self, Error> {
        let account = account::for_database()?;
        let place = account::workplace(wish.home, "postgres", account.as_ref()).await?;
        let pid_file = wish.home.join("postgres.pid");
        identity::stop_leftover("PostgreSQL", &pid_file, Signal::SIGINT, STOP_WITHIN).await;
        let data = place.join("data");
        let (version, bin) = choose_installation(wish.bin, &data)?;
        if !data.join("PG_VERSION").exists() {
            create(&bin, &place, &data, wish.database, account.as_ref()).await?;
        }
        let port = remembered_port(wish)?;
        let mut spec = Spec {
            name: "PostgreSQL",
            program: bin.join("postgres"),
            args: vec!["-D".into(), data.into()],
            envs: Vec::new(),
            account,
            directory: place,
            log: wish.home.join("logs/postgres.log"),
            pid_file,
            // A smart shutdown (SIGTERM) would wait for clients for ever.
            stop_signal: Signal::SIGINT,
            stop_within: STOP_WITHIN,
        };
        for setting in settings(port, wish.connections_max) {
            spec.args.extend(["-c".into(), setting.into()]);
        }
        Ok(Self { spec, port, version })
    }

    /// The address of one of its databases, as its superuser.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Its version and address, for the terminal.
    pub(crate) fn describe(&self) -> String {
        format!("PostgreSQL {} on 127.0.0.1:{}", self.version, self.port)
    }

    /// Hands it over to be started.
    pub(crate) fn member(self) -> Member {
        Member::new(self.spec, Readiness::Postgres(self.port), START_WITHIN)
    }
}

/// The server's settings; docker-compose.yml has the same but for the address.
fn settings(port: u16, connections_max: u16) -> Vec<String> {
    let mut settings = vec![
        format!("port={port}"),
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "cluster_name=order-dev".to_owned(),
        format!("max_connections={connections_max}"),
    ];
    settings.extend(SHARED_SETTINGS.map(str::to_owned));
    settings
}

/// What the private server and the one in docker-compose.yml have in common. An acknowledged order is on disk. Files of the
/// write-ahead log are kept and used again rather than made anew, for which every commit would wait.
const SHARED_SETTINGS: [&str; 7] = [
    "fsync=on",
    "full_page_writes=on",
    "synchronous_commit=on",
    "max_wal_size=2GB",
    "min_wal_size=1GB",
    "timezone=UTC",
    "log_timezone=UTC",
];

/// Creates the data with its database beside its final place and moves it there, so that what exists is whole.
async fn create(bin: &Path, place: &Path, data: &Path, database: &str, account: Option<&Account>) -> Result<(), Error> {
    let unfinished = place.join("data.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).attempt(|| format!("clear {}", unfinished.display()))?;
    }
    let program = |name: &str| {
        let mut command = Command::new(bin.join(name));
        command.current_dir(place);
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid).env("HOME", place);
        }
        command
    };
    let mut initdb = program("initdb");
    initdb.arg("-D").arg(&unfinished).args(["-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    initdb.args(["--data-checksums", "--no-instructions"]);
    child::run(initdb).await?;
    if database != OWN_DATABASE {
        create_database(program("postgres"), &unfinished, database).await?;
    }
    fs::rename(&unfinished, data).attempt(|| format!("move the new database to {}", data.display()))
}

/// Creates a database while no server runs, in PostgreSQL's single-user mode: this takes no client.
async fn create_database(mut single: Command, data: &Path, database: &str) -> Result<(), Error> {
    single.arg("--single").arg("-D").arg(data).arg(OWN_DATABASE);
    single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let attempt = || format!("create the database {database}");
    let mut running = single.spawn().attempt(attempt)?;
    if let Some(mut stdin) = running.stdin.take() {
        stdin.write_all(format!("create database {database};\n").as_bytes()).await.attempt(attempt)?;
    }
    let output = running.wait_with_output().await.attempt(attempt)?;
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() || complaint.contains("ERROR:") {
        return Err(Error::Failed {
            program: "postgres --single".to_owned(),
            status: output.status,
            output: complaint,
        });
    }
    Ok(())
}

/// The port of the last run again, if it is free.
fn remembered_port(wish: &Wish<'_>) -> Result<u16, Error> {
    let memory = wish.home.join("postgres.port");
    let remembered = fs::read_to_string(&memory).ok().and_then(|text| text.trim().parse().ok());
    let port = ports::choose(wish.port, remembered.unwrap_or(PORT_PREFERRED), 1, "PostgreSQL")?;
    fs::write(&memory, format!("{port}\n")).attempt(|| format!("write {}", memory.display()))?;
    Ok(port)
}

/// The installation that the data was made with, or the best one where there is no data yet.
fn choose_installation(bin: Option<&Path>, data: &Path) -> Result<(String, PathBuf), Error> {
    let found = installations(bin);
    let wanted = fs::read_to_string(data.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
    let Some(wanted) = wanted else {
        return found.into_iter().next().ok_or_else(|| Error::Missing(format!("{}: {}", NEED.what, NEED.by_hand)));
    };
    found.into_iter().find(|(version, _)| major(version) == wanted).ok_or_else(|| {
        Error::Missing(format!(
            "{} was made by PostgreSQL {wanted}, which is not installed: install it, or move the data away",
            data.display()
        ))
    })
}

/// Every installation with its version, best first: the one named, the one on the path, Debian's from the newest.
fn installations(named: Option<&Path>) -> Vec<(String, PathBuf)> {
    let mut places: Vec<PathBuf> = named.map(Path::to_path_buf).into_iter().collect();
    if named.is_none() {
        places.extend(packages::find("postgres").and_then(|program| program.parent().map(Path::to_path_buf)));
        let mut debian: Vec<PathBuf> =
            fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        debian.sort_by_key(|path| std::cmp::Reverse(directory_number(path)));
        places.extend(debian.into_iter().map(|path| path.join("bin")));
    }
    let complete = |bin: &PathBuf| ["postgres", "initdb"].iter().all(|name| packages::is_program(&bin.join(name)));
    places.into_iter().filter(complete).filter_map(|bin| Some((version(&bin.join("postgres"))?, bin))).collect()
}

fn directory_number(path: &Path) -> u32 {
    path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).unwrap_or(0)
}

fn version(postgres: &Path) -> Option<String> {
    let output = std::process::Command::new(postgres).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

/// `15.18` out of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn parse_version(text: &str) -> Option<String> {
    text.split_once("(PostgreSQL) ")?.1.split_whitespace().next().map(str::to_owned)
}

/// `15` out of `15.18` or `18beta1`.
fn major(version: &str) -> &str {
    version.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let text = "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n";
        assert_eq!(parse_version(text).as_deref(), Some("15.18"));
        assert_eq!(major("15.18"), "15");
        assert_eq!(major("18beta1"), "18");
    }

    #[test]
    fn newer_directories_come_first() {
        assert!(directory_number(Path::new("/usr/lib/postgresql/18")) > directory_number(Path::new("/x/9")));
    }

    #[test]
    fn the_composed_server_has_our_settings() {
        let compose = fs::read_to_string(crate::config::checkout().join("docker-compose.yml")).unwrap();
        for setting in SHARED_SETTINGS {
            assert!(compose.contains(setting), "docker-compose.yml lacks {setting}");
        }
    }
}
