//! The relay beside a transaction that somebody has left open: nothing of what is published meanwhile can be cleaned up, and
//! it must publish as before.

use std::time::{Duration, Instant};

use chassis::testkit::TestDatabase;
use command::relay::{Relay, Step};
use sqlx::PgPool;

use crate::Plan;
use crate::relay::{drain, fill, relay};
use crate::report::{Row, median};

/// Events of a backlog.
const BACKLOG: usize = 100_000;
const BACKLOG_QUICK: usize = 30_000;
/// Events that come and are published while time passes: so many at once, so often.
const BATCH: usize = 500;
const PACE: Duration = Duration::from_millis(500);
/// The snapshot is held for twice as long as other long things take: ten minutes.
const TIMES_LONG: u32 = 2;
/// A backlog is drained in half a second, which varies by a fifth: so many of them for each round of others.
const BACKLOGS: usize = 3;

/// Backlogs without a snapshot held, with one, and without again, so that what changes with time weighs on neither.
pub(crate) async fn measure(plan: Plan) -> Vec<Row> {
    let backlog = if plan.quick { BACKLOG_QUICK } else { BACKLOG };
    let database = TestDatabase::create(&command::MIGRATOR).await;
    let pool = database.pool();
    let mut relay = relay(&database).await;
    fill(&pool, backlog).await;
    drain(&mut relay).await;
    let mut free = rates(&pool, &mut relay, plan, backlog).await;

    let mut holder = pool.begin().await.unwrap();
    // Its own transaction id holds the horizon back, as a writer that hangs does.
    sqlx::raw_sql("set transaction isolation level repeatable read; select pg_current_xact_id(), count(*) from orders")
        .execute(&mut *holder)
        .await
        .unwrap();
    let length = plan.long * TIMES_LONG;
    pass(&pool, &mut relay, length).await;
    let held = median(rates(&pool, &mut relay, plan, backlog).await);
    holder.rollback().await.unwrap();
    free.extend(rates(&pool, &mut relay, plan, backlog).await);
    let free = median(free);
    let name = format!("relay, backlog, a snapshot held for {} s", length.as_secs());
    vec![Row::new(name, held, "ev/s").limit(free, "without").at_least(0.9, free, "within 10 %")]
}

async fn rates(pool: &PgPool, relay: &mut Relay, plan: Plan, backlog: usize) -> Vec<f64> {
    let mut rates = Vec::new();
    for _round in 0..plan.rounds * BACKLOGS {
        fill(pool, backlog).await;
        rates.push(drain(relay).await.1);
    }
    rates
}

/// Events come and are published.
async fn pass(pool: &PgPool, relay: &mut Relay, length: Duration) {
    let mut pace = tokio::time::interval(PACE);
    let started = Instant::now();
    while started.elapsed() < length {
        pace.tick().await;
        fill(pool, BATCH).await;
        while let Step::Published(_) = relay.step().await.unwrap() {}
    }
}
