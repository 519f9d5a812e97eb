//! What would grow or run out: partitions of the outbox are made ahead and dropped, old progress is deleted.

use std::time::Duration;

use sqlx::PgConnection;

/// How often.
pub(super) const INTERVAL: Duration = Duration::from_secs(10);
/// How many progress rows are kept to look at.
const PROGRESS_ROWS_KEPT: i64 = 100;
/// The most progress rows that are deleted at a time.
const PROGRESS_ROWS_DELETED_MAX: i64 = 20_000;

/// Makes partitions, drops those that are published and older than `keep_s` seconds, and deletes old progress.
pub(super) async fn once(connection: &mut PgConnection, keep_s: u32) -> Result<(), sqlx::Error> {
    sqlx::query("select outbox_partitions_ensure()").execute(&mut *connection).await?;
    sqlx::query("select outbox_partitions_purge(make_interval(secs => $1))")
        .bind(f64::from(keep_s))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "delete from relay_progress where (epoch, id) in (
             select epoch, id from relay_progress
             where (epoch, id) < (select epoch, id from relay_progress
                                  order by epoch desc, id desc offset $1 limit 1)
             limit $2)",
    )
    .bind(PROGRESS_ROWS_KEPT)
    .bind(PROGRESS_ROWS_DELETED_MAX)
    .execute(connection)
    .await?;
    Ok(())
}
