//! `check`: does everything that is derived from the event log still agree with it?
//!
//! Three comparisons, each by itself: an aggregate row is the fold of its events; every event has one outbox row; the topic
//! holds every published event, byte for byte, in order, and nothing that the log does not have.

use std::collections::{HashMap, HashSet};
use std::fmt;

use chassis::kafka::topic::partition_of;
use domain::{Currency, Decider, Order, schema};
use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use sqlx::types::Uuid;

use crate::relay::progress::Progress;
use crate::relay::topic::{Scan, identity};
use crate::relay::{Error, Setup, connect, disconnect};

/// How many examples of each disagreement are kept.
const EXAMPLES_MAX: usize = 5;

/// What the check found.
#[derive(Debug, Default)]
pub struct Report {
    /// Orders in the log.
    pub orders: u64,
    /// Events in the log.
    pub events: u64,
    /// Events that are not on the topic yet, and need not be.
    pub unpublished: u64,
    /// Records in the topic.
    pub records: u64,
    /// Records that repeat another one: harmless.
    pub duplicates: u64,
    /// Records that are not this service's: writers of the six published fields, or garbage.
    pub foreign: u64,
    /// Disagreements by kind.
    pub disagreements: HashMap<Kind, Disagreement>,
}

/// How two things can disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The aggregate row is not the fold of its events, or either is missing.
    Aggregate,
    /// An event without its outbox row, or the other way round.
    Outbox,
    /// A published event that the topic does not hold.
    MissingInTopic,
    /// A record that is not in the log, or not byte for byte.
    NotInLog,
    /// An order's history that the topic, read from its beginning with all repeats, never tells in order.
    OutOfOrder,
    /// The relay's progress means nothing in this database server: the relay builds it anew when it starts.
    Progress,
    /// An event that cannot be read.
    Unreadable,
}

/// How often, and where for instance.
#[derive(Debug, Default)]
pub struct Disagreement {
    /// How often.
    pub count: u64,
    /// The first few.
    pub examples: Vec<String>,
}

impl Report {
    /// True when everything agrees.
    pub fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }

    fn disagree(&mut self, kind: Kind, order: Uuid, detail: impl fmt::Display) {
        self.note(kind, format!("order {order}: {detail}"));
    }

    fn note(&mut self, kind: Kind, example: String) {
        let disagreement = self.disagreements.entry(kind).or_default();
        disagreement.count += 1;
        if disagreement.examples.len() < EXAMPLES_MAX {
            disagreement.examples.push(example);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "log:    {} orders, {} events, {} not published yet", self.orders, self.events, self.unpublished)?;
        writeln!(
            f,
            "topic:  {} records, {} of them repeats, {} of other writers",
            self.records, self.duplicates, self.foreign
        )?;
        if self.agrees() {
            return write!(f, "result: everything agrees with the log");
        }
        let mut kinds: Vec<_> = self.disagreements.iter().collect();
        kinds.sort_by_key(|(kind, _)| **kind);
        for (kind, Disagreement { count, examples }) in kinds {
            writeln!(f, "{kind:?}: {count}")?;
            for example in examples {
                writeln!(f, "  {example}")?;
            }
        }
        write!(f, "result: NOT everything agrees with the log")
    }
}

/// Compares. May run while the services do.
///
/// # Errors
///
/// The broker's or the database's.
pub async fn check(setup: &Setup, default_currency: Currency) -> Result<Report, Error> {
    let mut report = Report::default();
    let mut connection = connect(&setup.connect).await?;
    sqlx::raw_sql("set statement_timeout = 0; set enable_seqscan = on").execute(&mut connection).await?;
    check_aggregates(setup, &mut connection, default_currency, &mut report).await?;
    check_outbox(&mut connection, &mut report).await?;
    // Progress first, then the topic, then the log: what progress calls published must be in the topic by then, and what
    // is in the topic must be in the log by then, however much is written meanwhile.
    let partitions = usize::try_from(setup.topic.partitions).unwrap_or_default();
    let progress = Progress::load(&mut connection, partitions).await?;
    if let Some(why) = progress.foreign() {
        report.note(Kind::Progress, why.to_string());
    }
    for partition in 0..setup.topic.partitions {
        check_partition(setup, &mut connection, &progress, partition, &mut report).await?;
    }
    disconnect(connection).await;
    Ok(report)
}

/// One pass over the log, folding, beside the aggregate rows of the same moment.
async fn check_aggregates(
    setup: &Setup,
    connection: &mut PgConnection,
    default_currency: Currency,
    report: &mut Report,
) -> Result<(), Error> {
    // One statement sees one moment; the row comes along with the order's first event.
    let mut rows = sqlx::query(
        "select e.order_id, e.version, e.payload, o.version, o.status, o.state, o.state_revision
         from events e full join orders o on o.order_id = e.order_id and e.version = 1
         order by coalesce(e.order_id, o.order_id), e.version nulls first",
    )
    .fetch(connection);
    let mut current: Option<Fold> = None;
    while let Some(row) = rows.try_next().await? {
        setup.status.alive();
        let order_id: Option<Uuid> = row.try_get(0)?;
        let Some(order_id) = order_id else {
            report.disagree(Kind::Aggregate, Uuid::nil(), "an aggregate row without events");
            continue;
        };
        if current.as_ref().is_none_or(|fold| fold.order_id != order_id) {
            if let Some(fold) = current.take() {
                fold.finish(report);
            }
            current = Some(Fold::begin(order_id, &row)?);
            report.orders += 1;
        }
        if let Some(fold) = &mut current {
            fold.add(row.try_get(1)?, row.try_get(2)?, default_currency, report);
        }
        report.events += 1;
    }
    if let Some(fold) = current {
        fold.finish(report);
    }
    Ok(())
}

/// An order's events being folded, and the row that should be the result.
struct Fold {
    order_id: Uuid,
    version: i32,
    state: Order,
    row: Option<(i32, String, String, i16)>,
}

impl Fold {
    fn begin(order_id: Uuid, row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        let version: Option<i32> = row.try_get(3)?;
        let row = match version {
            Some(version) => Some((version, row.try_get(4)?, row.try_get(5)?, row.try_get(6)?)),
            None => None,
        };
        Ok(Self { order_id, version: 0, state: Order::default(), row })
    }

    fn add(&mut self, version: i32, payload: String, default_currency: Currency, report: &mut Report) {
        if version != self.version + 1 {
            report.disagree(Kind::Aggregate, self.order_id, format_args!("version {version} follows {}", self.version));
        }
        self.version = version;
        match schema::decode(payload.as_bytes(), default_currency) {
            Ok(decoded) => self.state = Order::evolve(std::mem::take(&mut self.state), &decoded.recorded.event),
            Err(error) => report.disagree(Kind::Unreadable, self.order_id, format_args!("version {version}: {error}")),
        }
    }

    fn finish(self, report: &mut Report) {
        let Some((version, status, state, revision)) = self.row else {
            return report.disagree(Kind::Aggregate, self.order_id, "events without an aggregate row");
        };
        if version != self.version {
            let detail = format!("the row is at version {version}, the events at {}", self.version);
            return report.disagree(Kind::Aggregate, self.order_id, detail);
        }
        if self.state.status().map(|status| status.as_str()) != Some(status.as_str()) {
            return report.disagree(Kind::Aggregate, self.order_id, format_args!("the row says {status}"));
        }
        // A row of another revision is folded anew before its next use.
        if revision == Order::STATE_REVISION && serde_json::from_str::<Order>(&state).ok().as_ref() != Some(&self.state)
        {
            report.disagree(Kind::Aggregate, self.order_id, "the row's state is not the fold of the events");
        }
    }
}

/// Every outbox row points at an event; every event has exactly one, as long as no outbox partition has been dropped.
async fn check_outbox(connection: &mut PgConnection, report: &mut Report) -> Result<(), Error> {
    let purged: bool =
        sqlx::query_scalar("select to_regclass('outbox_p0') is null").fetch_one(&mut *connection).await?;
    let mut odd = sqlx::query_as::<_, (Uuid, i32, i64)>(
        "select order_id, version, count(o.seq) from outbox o full join events e using (order_id, version)
         group by order_id, version
         having count(o.seq) > 1 or count(e.event_id) = 0 or (count(o.seq) = 0 and not $1)",
    )
    .bind(purged)
    .fetch(connection);
    while let Some((order_id, version, rows)) = odd.try_next().await? {
        report.disagree(Kind::Outbox, order_id, format_args!("version {version} has {rows} outbox rows, or no event"));
    }
    Ok(())
}

async fn check_partition(
    setup: &Setup,
    connection: &mut PgConnection,
    progress: &Progress,
    partition: i32,
    report: &mut Report,
) -> Result<(), Error> {
    let mut held = read_partition(setup, partition, report).await?;
    let unpublished: HashSet<(Uuid, i32)> = progress.unpublished(connection).await?.into_iter().collect();
    let mut log =
        sqlx::query_as::<_, (Uuid, i32, String)>("select order_id, version, payload from events").fetch(connection);
    while let Some((order_id, version, payload)) = log.try_next().await? {
        setup.status.alive();
        if partition_of(order_id.to_string().as_bytes(), setup.topic.partitions) != partition {
            continue;
        }
        match held.remove(&(order_id, version)) {
            Some(digest) if digest == schema::digest(payload.as_bytes()) => {}
            Some(_other) => {
                report.disagree(Kind::NotInLog, order_id, format_args!("version {version} has other bytes"))
            }
            None if unpublished.contains(&(order_id, version)) => report.unpublished += 1,
            None => report.disagree(Kind::MissingInTopic, order_id, format_args!("version {version}")),
        }
    }
    for ((order_id, version), _digest) in held {
        report.disagree(Kind::NotInLog, order_id, format_args!("version {version}"));
    }
    Ok(())
}

/// What a partition holds, by order and version.
async fn read_partition(
    setup: &Setup,
    partition: i32,
    report: &mut Report,
) -> Result<HashMap<(Uuid, i32), [u8; 16]>, Error> {
    let mut scan = Scan::partition(&setup.brokers, &setup.topic, partition).await?;
    let mut held = HashMap::new();
    // Per order: how far its history was told in order, and its highest version.
    let mut told: HashMap<Uuid, (i32, i32)> = HashMap::new();
    loop {
        let messages = scan.next().await?;
        setup.status.alive();
        if messages.is_empty() {
            break;
        }
        for message in messages {
            report.records += 1;
            let payload = message.payload.unwrap_or_default();
            let position =
                identity(&payload).and_then(|(order, version)| Some((order.0, i32::try_from(version.0).ok()?)));
            let Some((order_id, version)) = position else {
                report.foreign += 1;
                continue;
            };
            let (through, highest) = told.entry(order_id).or_default();
            if version == *through + 1 {
                *through = version;
            }
            *highest = version.max(*highest);
            let digest = schema::digest(&payload);
            match held.insert((order_id, version), digest) {
                None => {}
                Some(first) if first == digest => report.duplicates += 1,
                Some(_other) => {
                    report.disagree(Kind::NotInLog, order_id, format_args!("version {version} twice, differently"))
                }
            }
        }
    }
    // A topic that was made anew may begin with events whose predecessors were restored behind them; a repeat heals that.
    for (order_id, (through, highest)) in told {
        if through < highest {
            let detail = format_args!("version {highest} is there, in order up to {through}");
            report.disagree(Kind::OutOfOrder, order_id, detail);
        }
    }
    Ok(held)
}
