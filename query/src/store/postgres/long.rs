//! Long questions: on connections of their own, within a time budget, and ended when whoever asked has left.

use std::time::{Duration, Instant};

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgPool, Postgres};

use super::Store;
use crate::store::Error;

/// A query that was cancelled, here by its time-out.
const QUERY_CANCELLED: &str = "57014";
/// No time-out is 0.
const SHORTEST: Duration = Duration::from_millis(1);

/// A connection that is asked something long.
///
/// Dropped before the answer is there, it ends the question in the server, which would go on otherwise, and is closed:
/// the next one to use it would wait for an answer that nobody wants.
pub(super) struct Long {
    connection: Option<PoolConnection<Postgres>>,
    session: i32,
    readers: PgPool,
}

impl Store {
    /// A connection for a question that may take `budget`, the wait for the connection included.
    pub(super) async fn long(&self, budget: Duration) -> Result<Long, Error> {
        let until = Instant::now() + budget;
        let acquired = tokio::time::timeout(budget, self.long.acquire()).await.map_err(|_elapsed| Error::LongBusy)?;
        let mut connection = acquired.map_err(|error| match error {
            sqlx::Error::PoolTimedOut => Error::LongBusy,
            error => error.into(),
        })?;
        let left = until.saturating_duration_since(Instant::now()).max(SHORTEST);
        let (session, _set): (i32, String) =
            sqlx::query_as("select pg_backend_pid(), set_config('statement_timeout', $1, false)")
                .bind(format!("{}ms", left.as_millis().max(1)))
                .fetch_one(&mut *connection)
                .await?;
        Ok(Long { connection: Some(connection), session, readers: self.readers.clone() })
    }
}

impl Long {
    /// Asks, and gives the connection back with the answer.
    pub(super) async fn ask<T>(
        mut self,
        question: impl AsyncFnOnce(&mut PoolConnection<Postgres>) -> Result<T, sqlx::Error>,
    ) -> Result<T, Error> {
        let Some(connection) = &mut self.connection else { return Err(sqlx::Error::PoolClosed.into()) };
        let answer = question(connection).await;
        drop(self.connection.take());
        answer.map_err(|error| match &error {
            sqlx::Error::Database(refused) if refused.code().as_deref() == Some(QUERY_CANCELLED) => Error::OverBudget,
            _ => error.into(),
        })
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else { return };
        let (session, readers) = (self.session, self.readers.clone());
        tokio::spawn(async move {
            // Held until then: its session can be nobody else's.
            let cancelled = sqlx::query("select pg_cancel_backend($1)").bind(session).execute(&readers).await;
            if let Err(error) = cancelled {
                tracing::debug!(%error, "a question that nobody waits for goes on to its time-out");
            }
            drop(connection.detach());
        });
    }
}
