//! A database that was moved to another server: by a dump, a copy, a subscription.
//!
//! The transaction ids of its outbox rows and the snapshots of its progress belong to the server that it came from. Here they
//! may lie in the future, where no snapshot ever sees them, or name transactions of somebody else. So the rows are given ids
//! of this server, and nothing counts as published until the log was compared with the topic. Killed in the middle, it
//! begins again: the old progress stays the latest until every row is adopted.
//!
//! `pg_upgrade` keeps the ids and draws a new identifier; it costs one comparison. A standby that is promoted and a base
//! backup that is restored keep both, and the ids mean what they meant; what is lost there is found by [`super::ahead`].

use sqlx::postgres::PgConnection;

use super::Error;
use super::progress::Foreign;
use super::term::{OFFSET_UNKNOWN, Term};

/// The most rows that are adopted in one transaction.
const ROWS_PER_TRANSACTION: i32 = 10_000;

/// Makes the outbox this server's own, and the progress one that knows nothing of the topic.
pub(super) async fn adopt(term: &mut Term, connection: &mut PgConnection, why: Foreign) -> Result<(), Error> {
    tracing::warn!(%why, "the database was moved: the relay's progress is built anew from the log and the topic");
    let mut after = 0_i64;
    loop {
        let last: Option<i64> = sqlx::query_scalar("select outbox_adopt($1, $2)")
            .bind(after)
            .bind(ROWS_PER_TRANSACTION)
            .fetch_one(&mut *connection)
            .await?;
        let Some(last) = last else { break };
        after = last;
        term.stay(connection).await?;
    }
    let progress = term.progress_mut();
    progress.adopted();
    progress.next_offsets.fill(OFFSET_UNKNOWN);
    term.save(connection).await
}
