//! The right to publish: one row with an owner, an expiry by the database's clock, and a fencing epoch (rules R23).

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::Instant;

/// How long a lease lasts without a heartbeat.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often its owner renews it.
pub const HEARTBEAT: Duration = Duration::from_millis(750);
/// How long before its end the owner stops trusting it: room for clocks that run at different speeds.
const MARGIN: Duration = Duration::from_millis(500);

/// A lease that was held when it was last renewed.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The fencing token: whatever this owner records carries it.
    pub(crate) epoch: i64,
    trusted_until: Instant,
    heartbeat_due: Instant,
}

/// What a heartbeat found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// Still ours.
    Held,
    /// Still ours, but somebody asks for it.
    Wanted,
    /// Somebody else's.
    Lost,
}

impl Lease {
    /// Takes the lease when it is free. With `insist`, asks its owner to hand over at the next heartbeat.
    pub(crate) async fn acquire(
        connection: &mut PgConnection,
        owner: &str,
        insist: bool,
    ) -> Result<Option<Self>, sqlx::Error> {
        // Counted from before the request, so that ours ends first.
        let asked = Instant::now();
        // The session may commit asynchronously; the epoch must not be forgotten in a crash.
        let mut transaction = sqlx::Connection::begin(connection).await?;
        sqlx::raw_sql("set local synchronous_commit = on").execute(&mut *transaction).await?;
        let epoch: Option<i64> = sqlx::query_scalar(
            "update relay_lease set epoch = epoch + 1, owner = $1, expires_at = now() + make_interval(secs => $2),
                 wanted_by = null, wanted_until = null
             where expires_at < now() and (wanted_by is null or wanted_by = $1 or wanted_until < now())
             returning epoch",
        )
        .bind(owner)
        .bind(LEASE.as_secs_f64())
        .fetch_optional(&mut *transaction)
        .await?;
        if epoch.is_none() && insist {
            sqlx::query(
                "update relay_lease set wanted_by = $1, wanted_until = now() + make_interval(secs => $2)
                 where wanted_by is null or wanted_by = $1 or wanted_until < now()",
            )
            .bind(owner)
            .bind(LEASE.as_secs_f64())
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(epoch.map(|epoch| Self { epoch, trusted_until: asked + LEASE - MARGIN, heartbeat_due: asked + HEARTBEAT }))
    }

    /// True until the lease may have run out; nothing is published after that.
    pub(crate) fn is_trusted(&self) -> bool {
        Instant::now() < self.trusted_until
    }

    pub(crate) fn heartbeat_is_due(&self) -> bool {
        Instant::now() >= self.heartbeat_due
    }

    /// Renews the lease.
    pub(crate) async fn heartbeat(&mut self, connection: &mut PgConnection) -> Result<Heartbeat, sqlx::Error> {
        let asked = Instant::now();
        let wanted: Option<bool> = sqlx::query_scalar(
            "update relay_lease set expires_at = now() + make_interval(secs => $2) where epoch = $1
             returning wanted_by is not null and wanted_until > now()",
        )
        .bind(self.epoch)
        .bind(LEASE.as_secs_f64())
        .fetch_optional(connection)
        .await?;
        let Some(wanted) = wanted else { return Ok(Heartbeat::Lost) };
        self.trusted_until = asked + LEASE - MARGIN;
        self.heartbeat_due = asked + HEARTBEAT;
        Ok(if wanted { Heartbeat::Wanted } else { Heartbeat::Held })
    }

    /// Until when it can be trusted.
    pub(crate) fn trusted_until(&self) -> Instant {
        self.trusted_until
    }

    /// Gives the lease back, so that the next owner need not wait for its end.
    pub(crate) async fn release(self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        sqlx::query("update relay_lease set expires_at = now() where epoch = $1")
            .bind(self.epoch)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// Gives back whatever lease `owner` has: for one whose lease was lost from sight with the step that held it.
pub(crate) async fn release(connection: &mut PgConnection, owner: &str) -> Result<(), sqlx::Error> {
    sqlx::query("update relay_lease set expires_at = now() where owner = $1 and expires_at > now()")
        .bind(owner)
        .execute(connection)
        .await?;
    Ok(())
}
