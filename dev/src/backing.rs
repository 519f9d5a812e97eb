//! What the services stand on: a database and a broker, ours or given.

use crate::error::Error;
use crate::kafka::{self, Kafka};
use crate::packages;
use crate::postgres::{self, Postgres};
use crate::stack::Stack;
use crate::terminal::say;

/// What is wanted.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    /// A database that is given; then none is started.
    pub(crate) database_url: Option<&'a str>,
    /// Brokers that are given; then none is started.
    pub(crate) brokers: Option<&'a str>,
    /// The database to start otherwise.
    pub(crate) postgres: postgres::Wish<'a>,
    /// The broker to start otherwise.
    pub(crate) kafka: kafka::Wish<'a>,
}

/// Where the two are.
#[derive(Debug)]
pub(crate) struct Backing {
    /// The database.
    pub(crate) database_url: String,
    /// The brokers.
    pub(crate) brokers: String,
}

/// Installs what is missing, starts what was not given, and returns when it serves.
///
/// # Errors
/// When something cannot be installed or started.
pub(crate) async fn start(wish: &Wish<'_>, stack: &mut Stack) -> Result<Backing, Error> {
    let mut needs = Vec::new();
    if wish.database_url.is_none() {
        needs.extend(postgres::needs(wish.postgres.bin));
    }
    if wish.brokers.is_none() {
        needs.extend(kafka::needs(wish.kafka.libs));
    }
    packages::install(&needs).await?;
    // One after the other, so that the two do not choose the same port.
    let mut members = Vec::new();
    let database_url = match wish.database_url {
        Some(given) => {
            say(format!("using PostgreSQL at {}", without_password(given)));
            given.to_owned()
        }
        None => {
            let postgres = Postgres::prepare(&wish.postgres).await?;
            say(format!("starting {} …", postgres.describe()));
            let url = postgres.url(wish.postgres.database);
            members.push(postgres.member());
            url
        }
    };
    let brokers = match wish.brokers {
        Some(given) => {
            say(format!("using Kafka at {given}"));
            given.to_owned()
        }
        None => {
            let kafka = Kafka::prepare(&wish.kafka).await?;
            say(format!("starting {} …", kafka.describe()));
            let brokers = kafka.brokers();
            members.push(kafka.member());
            brokers
        }
    };
    stack.start(members).await?;
    Ok(Backing { database_url, brokers })
}

/// A database URL that may be shown.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password in the query part is as secret as one before the host.
    let rest = rest.split('?').next().unwrap_or(rest);
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or(user)),
        None => format!("{scheme}://{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(without_password("postgres://me:secret@db/orders"), "postgres://me@db/orders");
        assert_eq!(without_password("postgres://me:s@cret@db/orders?password=x"), "postgres://me@db/orders");
        assert_eq!(without_password("postgres://db/orders"), "postgres://db/orders");
    }
}
