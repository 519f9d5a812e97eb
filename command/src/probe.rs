//! The readiness of the database, asked over a connection that nobody else uses.

use std::sync::Arc;
use std::time::Duration;

use chassis::postgres;
use chassis::telemetry::ErrorChain;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long the database has to answer: less than a check of readiness has.
const ANSWER_DEADLINE: Duration = Duration::from_millis(800);
/// For how long an answer is given again. Whoever asks for readiness in a loop asks the process, not the database.
const ANSWER_KEPT: Duration = Duration::from_millis(250);

/// What the database said, and when.
type Answer = (Instant, Result<(), String>);

/// A question to the database whose answer all probes of a moment share.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseProbe {
    pool: PgPool,
    last: Arc<Mutex<Option<Answer>>>,
}

impl DatabaseProbe {
    /// A probe over a pool of its own.
    pub(crate) fn new(pool: PgPool) -> Self {
        Self { pool, last: Arc::default() }
    }

    /// Whether the database answers.
    pub(crate) async fn answer(self) -> Result<(), String> {
        let mut last = self.last.lock().await;
        if let Some((at, answer)) = &*last
            && at.elapsed() < ANSWER_KEPT
        {
            return answer.clone();
        }
        let question = postgres::ask(&self.pool, ANSWER_DEADLINE, |connection| {
            Box::pin(async move { sqlx::query("select 1").execute(connection).await })
        });
        // Waiting for a connection counts as well.
        let answer = postgres::in_time(ANSWER_DEADLINE, question).await;
        let answer = answer.map(drop).map_err(|error| ErrorChain(&error).to_string());
        *last = Some((Instant::now(), answer.clone()));
        answer
    }
}
