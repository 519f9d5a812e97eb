//! The end of keys: expired ones are deleted as fast as they expire.
//!
//! Keys are deleted in short transactions until none is left, oldest first, with as much rest as work between two of them. So
//! expiry keeps up with any rate at which keys arrive, and takes half of a connection at most. One node does it at a time.

use std::convert::Infallible;
use std::time::Duration;

use chassis::outage::Outage;
use chassis::postgres;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::metrics::{IDEMPOTENCY_KEYS_FORGOTTEN, IDEMPOTENCY_OLDEST_AGE_SECONDS};

/// How often expired keys are looked for.
const LOOK: Duration = Duration::from_secs(60);
/// How many keys one transaction deletes: some tens of milliseconds.
const BATCH_KEYS_MAX: u32 = 2_000;
/// How long the database has for one statement. The server's own deadline is shorter.
const ANSWER_DEADLINE: Duration = Duration::from_secs(6);
/// The lock of the node that deletes ("keys"). Keys are locked by one number, which is another space.
const TURN: i32 = 0x6b65_7973;

/// Forgets keys that are older than `keep_s` seconds, until the service stops.
///
/// # Errors
///
/// None: what fails is tried again.
pub async fn expire(connect: PgConnectOptions, keep_s: u32, shutdown: CancellationToken) -> Result<(), Infallible> {
    let mut outage = Outage::new("forgetting expired idempotency keys");
    let rounds = async {
        loop {
            match round(&connect, keep_s).await {
                Ok(oldest_age_s) => {
                    outage.works();
                    metrics::gauge!(IDEMPOTENCY_OLDEST_AGE_SECONDS).set(oldest_age_s);
                }
                Err(error) => {
                    outage.failed(&error);
                    metrics::gauge!(IDEMPOTENCY_OLDEST_AGE_SECONDS).set(f64::NAN);
                }
            }
            sleep(LOOK).await;
        }
    };
    // Cut off in the middle of a batch, its connection is closed, and the batch is deleted or it is not.
    shutdown.run_until_cancelled(rounds).await.unwrap_or(Ok(()))
}

async fn round(connect: &PgConnectOptions, keep_s: u32) -> Result<f64, sqlx::Error> {
    let mut connection = postgres::connect(connect).await?;
    forget_expired(&mut connection, keep_s, BATCH_KEYS_MAX).await?;
    let oldest = "select coalesce(extract(epoch from now() - min(created_at)), 0)::float8 from idempotency_keys";
    let oldest = sqlx::query_scalar(oldest).fetch_one(&mut connection);
    let oldest_age_s = postgres::in_time(ANSWER_DEADLINE, oldest).await?;
    postgres::disconnect(connection).await;
    Ok(oldest_age_s)
}

/// Forgets all keys that are older than `keep_s` seconds, in transactions of at most `batch_keys_max`. Ends early where another node is
/// at it. Returns how many.
///
/// # Errors
///
/// The database's. The connection must not be used again then.
pub async fn forget_expired(
    connection: &mut PgConnection,
    keep_s: u32,
    batch_keys_max: u32,
) -> Result<u64, sqlx::Error> {
    let mut forgotten = 0;
    loop {
        let began = Instant::now();
        let batch = postgres::in_time(ANSWER_DEADLINE, forget_batch(connection, keep_s, batch_keys_max)).await?;
        metrics::counter!(IDEMPOTENCY_KEYS_FORGOTTEN).increment(batch);
        forgotten += batch;
        if batch < u64::from(batch_keys_max) {
            return Ok(forgotten);
        }
        sleep(began.elapsed()).await;
    }
}

async fn forget_batch(connection: &mut PgConnection, keep_s: u32, keys_max: u32) -> Result<u64, sqlx::Error> {
    // Rows are never updated, so their places are as good as their keys, and cheaper.
    let forgotten = sqlx::query(
        "with turn as materialized (select pg_try_advisory_xact_lock($3, 0) as mine)
         delete from idempotency_keys where ctid = any(array(
             select ctid from idempotency_keys
             where created_at < now() - make_interval(secs => $1) and (select mine from turn)
             order by created_at limit $2))",
    )
    .bind(f64::from(keep_s))
    .bind(i64::from(keys_max))
    .bind(TURN)
    .execute(connection)
    .await?;
    Ok(forgotten.rows_affected())
}
