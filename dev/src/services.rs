//! The two services, as children.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::backing::Backing;
use crate::child::Spec;
use crate::config::{self, UpArgs};
use crate::error::{Attempt as _, Error};
use crate::identity;
use crate::packages;
use crate::stack::{Member, Readiness};

/// A drain finishes what was accepted; the services bound it themselves, this is the last resort.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Migrations and the first look at the topic.
const START_WITHIN: Duration = Duration::from_secs(120);

/// Where the services' programs are, and where they work.
#[derive(Debug)]
pub(crate) struct Services {
    command: PathBuf,
    query: PathBuf,
    home: PathBuf,
}

impl Services {
    /// Finds both programs beside our own.
    ///
    /// # Errors
    /// When one is not there.
    pub(crate) fn locate(home: &Path) -> Result<Self, Error> {
        let bin = config::bin_dir().attempt(|| "find our own program".to_owned())?;
        let (command, query) = (bin.join("order-command"), bin.join("order-query"));
        for program in [&command, &query] {
            if !packages::is_program(program) {
                let advice = "build the services first: `make run` does, or `cargo build -p command -p query`";
                return Err(Error::Missing(format!("{} is not there: {advice}", program.display())));
            }
        }
        Ok(Self { command, query, home: home.to_path_buf() })
    }

    /// Ends services that an earlier run left.
    pub(crate) async fn stop_leftovers(&self) {
        for name in ["order-query", "order-command"] {
            identity::stop_leftover(name, &self.pid_file(name), Signal::SIGTERM, STOP_WITHIN).await;
        }
    }

    /// Both, ready to be started.
    ///
    /// # Errors
    /// When there is no place for the read model.
    pub(crate) fn members(
        &self,
        client: &reqwest::Client,
        args: &UpArgs,
        backing: &Backing,
    ) -> Result<Vec<Member>, Error> {
        let read_model = self.home.join("query");
        fs::create_dir_all(&read_model).attempt(|| format!("create {}", read_model.display()))?;
        let query_database = args.query_database_url.clone().unwrap_or_else(|| sqlite_url(&read_model));
        let reader_url = format!("http://{}", reachable(args.query_listen));
        let command = self.spec(
            "order-command",
            &self.command,
            &[
                ("COMMAND_LISTEN", &args.command_listen.to_string()),
                ("COMMAND_DATABASE_URL", &backing.database_url),
                ("COMMAND_READER_URL", &reader_url),
                ("KAFKA_BROKERS", &backing.brokers),
                ("UNKNOWN_SKU_PRICE", &args.unknown_sku_price),
                ("SEED_PRODUCTS", &args.seed_products),
            ],
        );
        let log_url = format!("http://{}", reachable(args.command_listen));
        let query = self.spec(
            "order-query",
            &self.query,
            &[
                ("QUERY_LISTEN", &args.query_listen.to_string()),
                ("QUERY_DATABASE_URL", &query_database),
                ("QUERY_LOG_URL", &log_url),
                ("KAFKA_BROKERS", &backing.brokers),
            ],
        );
        let members = [(command, args.command_listen), (query, args.query_listen)]
            .into_iter()
            .map(|(spec, listen)| {
                let url = format!("http://{}/health/ready", reachable(listen));
                Member::new(spec, Readiness::Http(client.clone(), url), START_WITHIN).followed()
            })
            .collect();
        Ok(members)
    }

    fn spec(&self, name: &'static str, program: &Path, envs: &[(&'static str, &str)]) -> Spec {
        let mut envs: Vec<_> = envs.iter().map(|(variable, value)| (*variable, (*value).into())).collect();
        // The output goes to a file, where colours are only noise.
        envs.push(("NO_COLOR", "1".into()));
        Spec {
            name,
            program: program.to_path_buf(),
            args: vec!["serve".into()],
            envs,
            account: None,
            directory: self.home.clone(),
            log: self.home.join("logs").join(name).with_extension("log"),
            pid_file: self.pid_file(name),
            stop_signal: Signal::SIGTERM,
            stop_within: STOP_WITHIN,
        }
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.home.join(name).with_extension("pid")
    }
}

/// Where something that listens here can be reached from here.
fn reachable(mut listen: SocketAddr) -> SocketAddr {
    if listen.ip().is_unspecified() {
        listen.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    listen
}

/// The URL of the SQLite file in this directory.
fn sqlite_url(directory: &Path) -> String {
    let path = directory.join("orders.db").display().to_string();
    let escaped = path.replace('%', "%25").replace('?', "%3F").replace('#', "%23").replace(' ', "%20");
    format!("sqlite://{escaped}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_space_stays_one_path() {
        assert_eq!(sqlite_url(Path::new("/a b")), "sqlite:///a%20b/orders.db");
    }
}
