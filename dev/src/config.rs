//! The command line, and the only place that reads the environment.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, FromArgMatches as _, Parser, Subcommand};

use crate::error::Error;

/// The whole system on one machine, and the chores around it.
#[derive(Debug, Parser)]
#[command(name = "order-dev", version, about)]
pub(crate) struct Cli {
    /// What to do; without it: `up`.
    #[command(subcommand)]
    pub(crate) action: Option<Action>,
    /// Where to keep the data and logs [default: .data at the root of the checkout].
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The directory of PostgreSQL's programs, when it is neither on PATH nor where Debian puts it.
    #[arg(long, global = true, env = "PG_BIN", value_name = "DIR")]
    pub(crate) pg_bin: Option<PathBuf>,
    /// The directory of Kafka's jars [default: .data/kafka-libs at the root of the checkout].
    #[arg(long, global = true, env = "ORDER_KAFKA_LIBS", value_name = "DIR")]
    pub(crate) kafka_libs: Option<PathBuf>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Run PostgreSQL, Kafka and both services in the foreground until Ctrl-C.
    Up(UpArgs),
    /// Run a command with a throw-away PostgreSQL and Kafka, and return its exit code.
    Test(TestArgs),
    /// Measure our figures beside the machine's limits and a naive design, on servers of their own on a disk.
    Bench(BenchArgs),
    /// Run only the broker, in the foreground.
    Kafka(KafkaArgs),
    /// Run only the database, in the foreground.
    Postgres(PostgresArgs),
    /// Place, pay, ship and cancel orders at a given rate, and report how long that took.
    Load(LoadArgs),
}

/// `order-dev up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// A PostgreSQL to use instead of a private one.
    #[arg(long, env = "COMMAND_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) command_database_url: Option<String>,
    /// Where the query service keeps its read model [default: a SQLite file in the data directory].
    #[arg(long, env = "QUERY_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) query_database_url: Option<String>,
    /// A Kafka to use instead of a private one.
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub(crate) kafka_brokers: Option<String>,
    /// Where order-command listens.
    #[arg(long, env = "COMMAND_LISTEN", default_value = "127.0.0.1:8000")]
    pub(crate) command_listen: SocketAddr,
    /// Where order-query listens.
    #[arg(long, env = "QUERY_LISTEN", default_value = "127.0.0.1:8001")]
    pub(crate) query_listen: SocketAddr,
    /// The private PostgreSQL's port [default: 5433, or the next free one].
    #[arg(long, env = "POSTGRES_PORT")]
    pub(crate) postgres_port: Option<u16>,
    /// The private Kafka's port; its controller takes the next one [default: 9092, or the next free pair].
    #[arg(long, env = "KAFKA_PORT")]
    pub(crate) kafka_port: Option<u16>,
    /// What a product without a price costs.
    #[arg(long, env = "UNKNOWN_SKU_PRICE", default_value = "10.00")]
    pub(crate) unknown_sku_price: String,
    /// Products that exist from the start.
    #[arg(long, env = "SEED_PRODUCTS", default_value = "prod-1=15.00,prod-2=12.50")]
    pub(crate) seed_products: String,
}

/// `order-dev test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// A PostgreSQL to use instead of a throw-away one; its user must be allowed to create databases.
    #[arg(long, env = "TEST_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) database_url: Option<String>,
    /// A Kafka to use instead of a throw-away one.
    #[arg(long, env = "TEST_KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub(crate) kafka_brokers: Option<String>,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `order-dev bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What to measure and how: `append`, `--quick`, `--json FILE`, `--help`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<OsString>,
}

/// `order-dev kafka`.
#[derive(Debug, Args)]
pub(crate) struct KafkaArgs {
    /// The port, 0 for any; the controller takes the next one [default: 9092, or the next free pair].
    #[arg(long, env = "KAFKA_PORT")]
    pub(crate) port: Option<u16>,
}

/// `order-dev postgres`.
#[derive(Debug, Args)]
pub(crate) struct PostgresArgs {
    /// The port, 0 for any [default: 5433, or the next free one].
    #[arg(long, env = "POSTGRES_PORT")]
    pub(crate) port: Option<u16>,
}

/// `order-dev load`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LoadArgs {
    /// Commands per second; they are sent on schedule, whether earlier ones were answered or not.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,
    /// How long, in seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) duration: u32,
    /// How many commands may be waiting for their answer at once.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,
    /// The command service.
    #[arg(long, env = "COMMAND_URL", default_value = "http://127.0.0.1:8000")]
    pub(crate) command_url: String,
    /// The query service.
    #[arg(long, env = "QUERY_URL", default_value = "http://127.0.0.1:8001")]
    pub(crate) query_url: String,
}

impl Cli {
    /// The directory of Kafka's jars. They are the same whatever the data, so they are fetched once.
    pub(crate) fn kafka_libs(&self) -> PathBuf {
        self.kafka_libs.clone().unwrap_or_else(|| checkout().join(".data/kafka-libs"))
    }
}

impl UpArgs {
    /// What `up` does when it is not named: all from the environment and the defaults.
    ///
    /// # Errors
    /// When a variable holds what the argument would not take.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        let command = Self::augment_args(clap::Command::new("up"));
        let matches = command.try_get_matches_from(["up"]);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| Error::Usage(error.to_string()))
    }
}

/// The root of this checkout: where the program was built.
pub(crate) fn checkout() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The directories that programs are looked for in.
pub(crate) fn search_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    // A normal user's PATH leaves these out, and some of the tools are there.
    directories.extend(["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from));
    directories
}

/// The Java installation that the environment names, if it names one.
pub(crate) fn java_home() -> Option<PathBuf> {
    std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The directory of this program, which is where the two services are, too.
pub(crate) fn bin_dir() -> std::io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// Where temporary files go.
pub(crate) fn temp_dir() -> PathBuf {
    std::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The names of the variables that clap attributes in these sources mention.
    fn variables_read(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                variables_read(&entry.path(), found);
            } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                let names = text.split(concat!("env = ", '"')).skip(1).filter_map(|rest| rest.split('"').next());
                let is_name = |name: &&str| name.chars().all(|letter| letter == '_' || letter.is_ascii_alphanumeric());
                found.extend(names.filter(is_name).map(str::to_owned));
            }
        }
    }

    #[test]
    fn the_example_environment_is_complete() {
        let mut read = BTreeSet::new();
        for member in ["chassis", "command", "dev", "query"] {
            variables_read(&checkout().join(member).join("src"), &mut read);
        }
        let example = fs::read_to_string(checkout().join(".env.example")).unwrap();
        let variable = |line: &str| line.trim_start_matches('#').split_once('=').map(|(name, _)| name.to_owned());
        let listed: BTreeSet<String> =
            example.lines().filter_map(variable).filter(|name| !name.contains(' ')).collect();
        assert_eq!(read.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not in .env.example");
        assert_eq!(listed.difference(&read).collect::<Vec<_>>(), Vec::<&String>::new(), "read by nobody");
    }

    #[test]
    fn what_follows_the_dashes_is_the_command() {
        let cli = Cli::try_parse_from(["order-dev", "test", "--", "cargo", "test", "--", "one"]).unwrap();
        let Some(Action::Test(test)) = cli.action else { panic!("not the test action") };
        assert_eq!(test.command, ["cargo", "test", "--", "one"]);
    }
}
