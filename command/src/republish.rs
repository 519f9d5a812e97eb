//! `republish`: events back on the topic from the event log, holding the relay's office meanwhile.
//!
//! Consumers drop what they know by order and version, so publishing again is harmless.

use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::postgres::PgConnection;

use crate::config::Selection;
use crate::relay::log::{LoggedEvent, event_columns};
use crate::relay::{Error, Setup, Term, connect, disconnect, take_office};

/// Publishes the selected events again, in the order of each order's history. Returns how many.
///
/// # Errors
///
/// The broker's or the database's; it can be run again.
pub async fn republish(setup: &Setup, selection: &Selection, handover: Duration) -> Result<u64, Error> {
    let mut connection = connect(&setup.connect).await?;
    let mut term = take_office(setup, &mut connection, handover).await?;
    let published = publish_selected(setup, &mut term, &mut connection, selection).await;
    term.end(&mut connection).await?;
    disconnect(connection).await;
    published
}

async fn publish_selected(
    setup: &Setup,
    term: &mut Term,
    connection: &mut PgConnection,
    selection: &Selection,
) -> Result<u64, Error> {
    // The log is read on a session of its own, so that the lease's heart beats meanwhile. It may take long.
    let mut reader = connect(&setup.connect).await?;
    sqlx::raw_sql("set statement_timeout = 0").execute(&mut reader).await?;
    let mut published = 0;
    let mut batch = Vec::with_capacity(setup.limits.batch_events_max);
    {
        let mut events = select(&mut reader, selection);
        while let Some(event) = events.try_next().await? {
            setup.status.alive();
            batch.push(event);
            if batch.len() == setup.limits.batch_events_max {
                published += publish(term, connection, &mut batch).await?;
            }
        }
    }
    published += publish(term, connection, &mut batch).await?;
    disconnect(reader).await;
    Ok(published)
}

async fn publish(term: &mut Term, connection: &mut PgConnection, batch: &mut Vec<LoggedEvent>) -> Result<u64, Error> {
    // Whoever wants the office waits: this was asked for by an operator.
    let _wanted = term.keep(connection).await?;
    if !batch.is_empty() {
        term.send(connection, batch).await?;
    }
    let published = batch.len() as u64;
    batch.clear();
    Ok(published)
}

fn select<'c>(reader: &'c mut PgConnection, selection: &Selection) -> BoxStream<'c, Result<LoggedEvent, sqlx::Error>> {
    const SELECTED: &str = concat!(
        "select 0::int8 as seq, ",
        event_columns!(),
        " from events e
         where ($1::uuid is null or order_id = $1)
           and ($2::timestamptz is null or occurred_at >= $2) and ($3::timestamptz is null or occurred_at < $3)
         order by order_id, version"
    );
    sqlx::query_as(SELECTED).bind(selection.order).bind(selection.from).bind(selection.to).fetch(reader)
}
