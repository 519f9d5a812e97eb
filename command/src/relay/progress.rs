//! How far publishing is, and what comes next: the outbox read by the difference of two snapshots (rules R5).
//!
//! `done` sees everything that is published. A window opens by taking the current snapshot as `until`; its rows are those
//! that `until` sees and `done` does not, in the order of `seq`. When the window is drained, `until` becomes `done`. A row
//! with a low `seq` that commits late is in a later window: nothing is skipped, and nobody waits for anybody.
//!
//! Snapshots and transaction ids mean something only in the server that gave them. Progress that was saved in another server
//! is *foreign*: nothing counts as published then, until [`super::moved`] has adopted the rows and the log is compared with
//! the topic.

use std::fmt;

use sqlx::PgConnection;

use super::log::{LoggedEvent, event_columns};

/// A relay's place in the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) done: Snapshot,
    pub(crate) window: Option<Window>,
    /// Per partition, the offset after the last acknowledged record.
    pub(crate) next_offsets: Vec<i64>,
    pub(crate) cluster_id: Option<String>,
    /// The PostgreSQL server, where it tells.
    system_identifier: Option<i64>,
    foreign: Option<Foreign>,
}

/// Why a place means nothing in this server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// Another server saved it, or a copy of its row was made.
    Progress,
    /// The outbox has rows whose transaction ids this server has not given yet.
    Rows,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Progress => "the relay's progress was saved in another database server",
            Self::Rows => "the outbox has transaction ids that this database server has not given yet",
        })
    }
}

/// What [`Progress::open_window`] finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Everything is published.
    Empty,
    /// The window is open.
    Open,
    /// There are rows of another server, which no snapshot of this one ever sees.
    Foreign,
}

/// A window that is being published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) until: String,
    /// Everything of the window up to here is published.
    pub(crate) seq: i64,
    /// The last of the window, when known.
    seq_max: i64,
    /// Few rows are found by their transactions; many by walking the sequence.
    small: bool,
}

/// A `pg_snapshot`, taken apart so that its parts can bound index scans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    text: String,
    /// Transactions from here on are not seen.
    xmax: String,
    /// Nor are these, which were running.
    running: Vec<String>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip…`.
    pub(crate) fn parse(text: String) -> Result<Self, sqlx::Error> {
        let mut parts = text.splitn(3, ':').skip(1).map(str::to_owned);
        match (parts.next(), parts.next()) {
            (Some(xmax), Some(running)) => {
                let running = running.split(',').filter(|xid| !xid.is_empty()).map(str::to_owned).collect();
                Ok(Self { text, xmax, running })
            }
            _ => Err(sqlx::Error::Decode(format!("`{text}` is not a snapshot").into())),
        }
    }
}

/// Sees nothing: in any server, every row lies beyond it.
const NOTHING: &str = "1:1:";

/// The most rows of a window that is read by transaction ids.
const SMALL_WINDOW_ROWS_MAX: i64 = 4_000;

impl Progress {
    /// The latest progress of the newest epoch that recorded any.
    pub(crate) async fn load(connection: &mut PgConnection, partitions: usize) -> Result<Self, sqlx::Error> {
        type Row = (String, Option<String>, i64, Vec<i64>, Option<String>, Option<i64>, bool, bool);
        // A row is this server's own when its transaction is the one that it names: a dump, a copy and a subscription write
        // rows in other transactions. That nothing is published is true in any server.
        let (done, until, seq, mut next_offsets, cluster_id, saved_in, native, rows_ahead): Row = sqlx::query_as(
            "select done::text, until::text, seq, next_offsets, cluster_id, system_identifier,
                    coalesce(xmin = saved_by::xid, false) or (done::text = $1 and until is null),
                    exists (select from outbox where xid >= pg_snapshot_xmax(pg_current_snapshot()))
             from relay_progress order by epoch desc, id desc limit 1",
        )
        .bind(NOTHING)
        .fetch_one(&mut *connection)
        .await?;
        let system_identifier = system_identifier(connection).await?;
        let another = matches!((saved_in, system_identifier), (Some(saved_in), Some(here)) if saved_in != here);
        let foreign = match (native && !another, rows_ahead) {
            (false, _) => Some(Foreign::Progress),
            (true, true) => Some(Foreign::Rows),
            (true, false) => None,
        };
        next_offsets.resize(partitions, 0);
        let mut window = until.map(|until| Window { until, seq, seq_max: i64::MAX, small: false });
        let mut done = Snapshot::parse(done)?;
        if foreign.is_some() {
            (done, window) = (Snapshot::parse(NOTHING.to_owned())?, None);
        }
        Ok(Self { done, window, next_offsets, cluster_id, system_identifier, foreign })
    }

    /// Why this place means nothing in this server, if so.
    pub(crate) fn foreign(&self) -> Option<Foreign> {
        self.foreign
    }

    /// The rows of another server have transaction ids of this one now.
    pub(crate) fn adopted(&mut self) {
        self.foreign = None;
    }

    /// Everything that this snapshot sees is published.
    pub(crate) fn settle(&mut self, done: Snapshot) {
        self.done = done;
        self.window = None;
    }

    /// Records this place, unless the epoch is no longer the lease's: then it answers false and the lease is lost.
    pub(crate) async fn save(&self, connection: &mut PgConnection, epoch: i64) -> Result<bool, sqlx::Error> {
        let saved = sqlx::query(
            "insert into relay_progress (epoch, done, until, seq, next_offsets, cluster_id, system_identifier)
             select $1, $2::pg_snapshot, $3::pg_snapshot, $4, $5, $6, $7
             where exists (select from relay_lease where epoch = $1)",
        )
        .bind(epoch)
        .bind(&self.done.text)
        .bind(self.window.as_ref().map(|window| window.until.as_str()))
        .bind(self.window.as_ref().map_or(0, |window| window.seq))
        .bind(&self.next_offsets)
        .bind(&self.cluster_id)
        .bind(self.system_identifier)
        .execute(connection)
        .await?;
        Ok(saved.rows_affected() == 1)
    }

    /// Opens the next window, if there is anything to publish.
    pub(crate) async fn open_window(&mut self, connection: &mut PgConnection) -> Result<Opening, sqlx::Error> {
        type Row = (String, i64, Option<i64>, Option<i64>, bool);
        // The statement's own snapshot is `pg_current_snapshot()`, so what it counts is exactly the window. Counting
        // beside min and max keeps the planner from walking the whole sequence for them.
        let (until, rows, seq_min, seq_max, foreign): Row = sqlx::query_as(
            "select pg_current_snapshot()::text, count(*), min(seq), max(seq),
                    coalesce(bool_or(xid >= pg_snapshot_xmax(pg_current_snapshot())), false) from (
                 select seq, xid from outbox where xid >= $1::text::xid8
                 union all
                 select seq, xid from outbox where xid = any($2::text[]::xid8[])) as unpublished",
        )
        .bind(&self.done.xmax)
        .bind(&self.done.running)
        .fetch_one(connection)
        .await?;
        if foreign {
            return Ok(Opening::Foreign);
        }
        let (Some(seq_min), Some(seq_max)) = (seq_min, seq_max) else {
            // Nothing lies between the two, so the younger one may take the place of the older.
            self.done = Snapshot::parse(until)?;
            return Ok(Opening::Empty);
        };
        self.window = Some(Window { until, seq: seq_min - 1, seq_max, small: rows <= SMALL_WINDOW_ROWS_MAX });
        Ok(Opening::Open)
    }

    /// The rows of the open window after `seq`, or after what is published of it, in order; fewer than `rows_max` when
    /// these are the last.
    pub(crate) async fn read(
        &self,
        connection: &mut PgConnection,
        seq: Option<i64>,
        rows_max: usize,
    ) -> Result<Vec<LoggedEvent>, sqlx::Error> {
        let Some(window) = &self.window else { return Ok(Vec::new()) };
        let rows_max = i64::try_from(rows_max).unwrap_or(i64::MAX);
        let query = if window.small {
            sqlx::query_as(SMALL).bind(&self.done.xmax).bind(&self.done.running)
        } else {
            sqlx::query_as(LARGE).bind(&self.done.text).bind(window.seq_max)
        };
        query.bind(&window.until).bind(seq.unwrap_or(window.seq)).bind(rows_max).fetch_all(connection).await
    }

    /// Everything up to `seq` of the open window is published; with `last`, the whole window.
    pub(crate) fn advance(&mut self, seq: i64, last: bool) -> Result<(), sqlx::Error> {
        let Some(window) = &mut self.window else { return Ok(()) };
        if last {
            self.done = Snapshot::parse(std::mem::take(&mut window.until))?;
            self.window = None;
        } else {
            window.seq = seq;
        }
        Ok(())
    }

    /// Returns how many events are not published, the `seq` of the oldest, and its age in seconds: the database's clock
    /// less the clock of the process that wrote it.
    pub(crate) async fn backlog(&self, connection: &mut PgConnection) -> Result<(i64, Option<i64>, f64), sqlx::Error> {
        sqlx::query_as(
            "with o as (
                 select seq, order_id, version, xid from outbox where xid >= $1::text::xid8
                 union all
                 select seq, order_id, version, xid from outbox where xid = any($2::text[]::xid8[])),
             pending as (
                 select count(*) as events, min(seq) as seq from o
                 where $3::pg_snapshot is null or seq > $4 or not pg_visible_in_snapshot(xid, $3::pg_snapshot))
             select events, seq, coalesce((
                 select greatest(0, extract(epoch from now() - e.occurred_at))::float8
                 from outbox o join events e using (order_id, version) where o.seq = pending.seq), 0)
             from pending",
        )
        .bind(&self.done.xmax)
        .bind(&self.done.running)
        .bind(self.window.as_ref().map(|window| window.until.as_str()))
        .bind(self.window.as_ref().map_or(0, |window| window.seq))
        .fetch_one(connection)
        .await
    }

    /// What is not published yet, as (order, version): the window's rest and everything after it.
    pub(crate) async fn unpublished(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Vec<(sqlx::types::Uuid, i32)>, sqlx::Error> {
        sqlx::query_as(
            "select order_id, version from (
                 select order_id, version, seq, xid from outbox where xid >= $1::text::xid8
                 union all
                 select order_id, version, seq, xid from outbox where xid = any($2::text[]::xid8[])) as o
             where $3::pg_snapshot is null or seq > $4 or not pg_visible_in_snapshot(xid, $3::pg_snapshot)",
        )
        .bind(&self.done.xmax)
        .bind(&self.done.running)
        .bind(self.window.as_ref().map(|window| window.until.as_str()))
        .bind(self.window.as_ref().map_or(0, |window| window.seq))
        .fetch_all(connection)
        .await
    }
}

/// Names the server among all others: `initdb` and `pg_upgrade` draw a new one, a standby and a restored base backup keep it.
/// None where the role may not ask, as some hosters have it.
async fn system_identifier(connection: &mut PgConnection) -> Result<Option<i64>, sqlx::Error> {
    const NOT_ALLOWED: &str = "42501";
    const NO_SUCH_FUNCTION: &str = "42883";
    let asked = sqlx::query_scalar("select system_identifier from pg_control_system()").fetch_one(connection).await;
    match asked {
        Ok(identifier) => Ok(Some(identifier)),
        Err(sqlx::Error::Database(error))
            if error.code().is_some_and(|code| code == NOT_ALLOWED || code == NO_SUCH_FUNCTION) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

const SMALL: &str = concat!(
    "with w as materialized (
         select seq, order_id, version, xid from outbox where xid >= $1::text::xid8
         union all
         select seq, order_id, version, xid from outbox where xid = any($2::text[]::xid8[]))
     select w.seq, ",
    event_columns!(),
    " from w join events e on e.order_id = w.order_id and e.version = w.version
     where pg_visible_in_snapshot(w.xid, $3::pg_snapshot) and w.seq > $4
     order by w.seq limit $5"
);

const LARGE: &str = concat!(
    "select o.seq, ",
    event_columns!(),
    " from (
         select seq, order_id, version from outbox
         where seq > $4 and seq <= $2 and pg_visible_in_snapshot(xid, $3::pg_snapshot)
           and not pg_visible_in_snapshot(xid, $1::pg_snapshot)
         order by seq limit $5) as o
     join events e on e.order_id = o.order_id and e.version = o.version
     order by o.seq"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_taken_apart() {
        let snapshot = Snapshot::parse("10:20:10,14,15".to_owned()).unwrap();
        assert_eq!((snapshot.xmax.as_str(), snapshot.running.len()), ("20", 3));
        let snapshot = Snapshot::parse("10:10:".to_owned()).unwrap();
        assert_eq!((snapshot.xmax.as_str(), snapshot.running.len()), ("10", 0));
        assert!(Snapshot::parse("nonsense".to_owned()).is_err());
    }
}
