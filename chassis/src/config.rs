//! Configuration: command line first, then the environment, then a default; `--help` is the reference.
//!
//! Services derive [`clap::Parser`] on their own struct and flatten [`Kafka`] and
//! [`crate::http::Limits`] into it. Everything is parsed before anything is opened.

use std::convert::Infallible;
use std::fmt;
use std::io::Write as _;
use std::str::FromStr;

use clap::error::ErrorKind;

use crate::kafka::{Brokers, TopicSpec};

/// The exit code of a process whose configuration is wrong (`EX_USAGE` of `sysexits.h`).
pub const EXIT_USAGE: i32 = 64;

/// A value that must not reach a log, such as a database URL with its password.
///
/// `Debug` and `Display` print `[redacted]`; only [`Secret::expose`] gives the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object per line, for machines.
    Json,
}

/// Where the events are published and what the topic must look like.
#[derive(Debug, Clone, clap::Args)]
pub struct Kafka {
    /// Kafka bootstrap servers, comma separated
    #[arg(long = "kafka-brokers", env = "KAFKA_BROKERS", default_value = "127.0.0.1:9092")]
    pub brokers: Brokers,

    /// Topic the events are published to
    #[arg(long = "topic", env = "ORDERS_TOPIC", default_value = "orders.events")]
    pub topic: String,

    /// Partitions of the topic; permanent, because another count moves keys to other partitions
    #[arg(
        long = "topic-partitions",
        env = "ORDERS_TOPIC_PARTITIONS",
        default_value_t = 6,
        value_parser = clap::value_parser!(i32).range(1..=1000)
    )]
    pub partitions: i32,

    /// Replicas of each partition: 3 in production, 1 on a laptop
    #[arg(
        long = "topic-replication",
        env = "ORDERS_TOPIC_REPLICATION",
        default_value_t = 1,
        value_parser = clap::value_parser!(i32).range(1..=15)
    )]
    pub replication: i32,
}

impl Kafka {
    /// The topic these flags describe.
    pub fn topic_spec(&self) -> TopicSpec {
        TopicSpec { name: self.topic.clone(), partitions: self.partitions, replication: self.replication }
    }
}

/// Parses the command line and the environment, or ends the process.
///
/// `--help` and `--version` print and exit 0. Anything wrong prints one line on standard error and exits
/// with [`EXIT_USAGE`], so that a supervisor can tell a bad configuration from a crash.
pub fn parse_or_exit<T: clap::Parser>() -> T {
    match T::try_parse() {
        Ok(config) => config,
        Err(error) => exit(&error),
    }
}

#[expect(clippy::exit, reason = "the first line of main: nothing is open yet, and the exit code is the contract")]
fn exit(error: &clap::Error) -> ! {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            // A closed standard output is not worth a second message.
            drop(error.print());
            std::process::exit(
                i32::from(error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) * EXIT_USAGE,
            )
        }
        _ => {
            drop(writeln!(std::io::stderr(), "{}", one_line(error)));
            std::process::exit(EXIT_USAGE)
        }
    }
}

/// The message of a clap error without its usage block, folded into one line.
fn one_line(error: &clap::Error) -> String {
    let rendered = error.render().to_string();
    let message = rendered.split("\nUsage:").next().unwrap_or(&rendered);
    let message = message.split("\nFor more information").next().unwrap_or(message);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Service {
        #[arg(long)]
        database_url: Secret,
        #[command(flatten)]
        kafka: Kafka,
        #[command(flatten)]
        http: crate::http::Limits,
        #[arg(long, value_enum, default_value = "pretty")]
        log_format: LogFormat,
    }

    #[test]
    fn a_secret_never_prints_itself() {
        let service = Service::try_parse_from(["x", "--database-url", "postgres://u:hunter2@h/d"]).unwrap();
        assert!(!format!("{service:?}").contains("hunter2"));
        assert_eq!(service.database_url.to_string(), "[redacted]");
        assert_eq!(service.database_url.expose(), "postgres://u:hunter2@h/d");
        assert_eq!(service.kafka.topic_spec().partitions, 6);
        assert_eq!(service.log_format, LogFormat::Pretty);
        assert_eq!(service.http.body_bytes_max, 65_536);
    }

    #[test]
    fn a_bad_value_is_one_line_that_names_the_flag() {
        let error = Service::try_parse_from(["x", "--database-url", "d", "--topic-partitions", "zero"]).unwrap_err();
        let line = one_line(&error);
        assert!(line.contains("--topic-partitions"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }

    #[test]
    fn a_missing_value_is_one_line_that_names_it() {
        let line = one_line(&Service::try_parse_from(["x"]).unwrap_err());
        assert!(line.contains("--database-url"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
}
