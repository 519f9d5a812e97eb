//! A commit that is proven, not assumed (rules R1).

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use tokio::time::Instant;

/// The transaction id of a writing transaction, as PostgreSQL prints an `xid8`: digits alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Xid(String);

impl Xid {
    /// Admits digits alone, because the text becomes part of a statement.
    pub(crate) fn parse(text: String) -> Option<Self> {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(Self(text))
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is durable.
    Committed,
    /// It has left nothing behind.
    Aborted,
    /// The server does not tell.
    Unknown,
}

impl Fate {
    fn read(status: Option<&str>) -> Self {
        match status {
            Some("committed") => Self::Committed,
            Some("aborted") => Self::Aborted,
            _ => Self::Unknown,
        }
    }
}

/// Prepares a session for [`commit`]: the question is planned once.
pub(crate) const PREPARE: &str = "prepare fate (xid8) as select pg_xact_status($1)";

/// Commits and asks in the same message how it went; with `and_begin` the next transaction begins in it, too.
///
/// `COMMIT` of an aborted transaction answers `ROLLBACK` without an error, and the driver hides that tag. The status of
/// the transaction itself cannot be mistaken.
pub(crate) async fn commit(connection: &mut PgConnection, xid: &Xid, and_begin: bool) -> Result<Fate, sqlx::Error> {
    let begin = if and_begin { " begin;" } else { "" };
    let statement = format!("commit;{begin} execute fate('{}')", xid.0);
    let rows = sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(connection).await?;
    let status: Option<String> = rows.first().map(|row| row.try_get(0)).transpose()?.flatten();
    Ok(Fate::read(status.as_deref()))
}

/// Asks on new connections, until the deadline, how a transaction ended whose answer was lost.
pub(crate) async fn resolve(options: &PgConnectOptions, xid: &Xid, deadline: Instant) -> Fate {
    const PAUSE: Duration = Duration::from_millis(20);
    loop {
        let asked = tokio::time::timeout_at(deadline, ask(options, xid)).await;
        match asked {
            Err(_elapsed) => return Fate::Unknown,
            Ok(Ok(fate @ (Fate::Committed | Fate::Aborted))) => return fate,
            // In progress, or the server is not back yet.
            Ok(Ok(Fate::Unknown) | Err(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn ask(options: &PgConnectOptions, xid: &Xid) -> Result<Fate, sqlx::Error> {
    let mut connection = options.connect().await?;
    let status: Option<String> =
        sqlx::query_scalar("select pg_xact_status($1::text::xid8)").bind(&xid.0).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(Fate::read(status.as_deref()))
}
