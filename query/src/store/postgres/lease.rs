//! The right to project: one row with an owner, an expiry by the database's clock, and a fencing epoch (rules R23).
//!
//! A node that does not hold the lease asks for it all the time; so one takes over within a lease of its owner's death,
//! and at once when the owner gave it back.

use std::convert::Infallible;
use std::time::Duration;

use chassis::telemetry::ErrorChain;
use sqlx::PgPool;
use tokio::sync::watch;
use uuid::Uuid;

use crate::store::Error;

/// How long the lease lasts without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often its owner renews it, and how often everybody else asks for it.
pub const HEARTBEAT: Duration = Duration::from_millis(500);

/// Takes the lease when it is free, keeps it, and tells this node's writer.
///
/// It runs beside the projector, not in it: a batch that takes longer than a lease must not lose it.
#[derive(Debug)]
pub struct Keeper {
    pool: PgPool,
    owner: String,
    told: watch::Sender<Option<i64>>,
}

impl Keeper {
    pub(super) fn new(pool: PgPool, told: watch::Sender<Option<i64>>) -> Self {
        Self { pool, owner: Uuid::now_v7().to_string(), told }
    }

    /// Takes the lease or keeps it, once; tells whether this node has it.
    ///
    /// # Errors
    ///
    /// When the database fails. The writer goes on under the epoch it knows: only the database knows better, and every
    /// commit asks it.
    pub async fn step(&self) -> Result<bool, Error> {
        let held = *self.told.borrow();
        let holds = match held {
            Some(epoch) if self.renew(epoch).await? => Some(epoch),
            Some(_) => None,
            None => self.acquire().await?,
        };
        match (held, holds) {
            (None, Some(epoch)) => tracing::info!(epoch, "this node projects now"),
            (Some(epoch), None) => tracing::warn!(epoch, "another node projects now"),
            _ => {}
        }
        self.told.send_if_modified(|told| std::mem::replace(told, holds) != holds);
        Ok(holds.is_some())
    }

    /// Steps until the writer is closed, then gives the lease back.
    ///
    /// # Errors
    ///
    /// None: what fails is told, and tried again.
    pub async fn run(self) -> Result<(), Infallible> {
        loop {
            if let Err(error) = self.step().await {
                tracing::warn!(error = %ErrorChain(&error), "the lease on the projection cannot be asked for now");
            }
            tokio::select! {
                biased;
                () = self.told.closed() => break,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
        }
        if let Err(error) = self.release().await {
            tracing::warn!(error = %ErrorChain(&error), "the lease is not given back: it runs out by itself");
        }
        self.pool.close().await;
        Ok(())
    }

    /// Gives the lease back, if this node has it, so that the next owner need not wait for its end.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn release(&self) -> Result<(), Error> {
        if let Some(epoch) = self.told.send_replace(None) {
            sqlx::query("update projection_lease set expires_at = '-infinity' where epoch = $1")
                .bind(epoch)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    async fn acquire(&self) -> Result<Option<i64>, Error> {
        // Projecting may commit asynchronously; an epoch must not be forgotten in a crash and given out again.
        let mut transaction = self.pool.begin().await?;
        sqlx::query("set local synchronous_commit = on").execute(&mut *transaction).await?;
        let epoch = sqlx::query_scalar(
            "update projection_lease set epoch = epoch + 1, owner = $1, \
             expires_at = clock_timestamp() + make_interval(secs => $2) \
             where expires_at < clock_timestamp() returning epoch",
        )
        .bind(&self.owner)
        .bind(LEASE.as_secs_f64())
        .fetch_optional(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(epoch)
    }

    async fn renew(&self, epoch: i64) -> Result<bool, Error> {
        let renewed = sqlx::query(
            "update projection_lease set expires_at = clock_timestamp() + make_interval(secs => $2) where epoch = $1",
        )
        .bind(epoch)
        .bind(LEASE.as_secs_f64())
        .execute(&self.pool)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }
}
