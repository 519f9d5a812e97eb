//! Rows in bulk, for the projector: a prepared statement per table, a row at a time, in the order of the table's key.

use rusqlite::{Connection, params};

use super::Transaction;
use super::recent::Touched;
use crate::batch::Applied;
use crate::checkpoint::Checkpoints;
use crate::cores;
use crate::projections::order_history::HistoryRow;
use crate::projections::order_products::OrderProducts;
use crate::store::{Changes, Error};

impl Transaction<'_> {
    pub(crate) async fn save(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        save_orders(&self.inner, changes)?;
        save_history(&self.inner, changes)?;
        if changes.batch.streamed && !changes.batch.applied.is_empty() {
            save_changes(&self.inner, changes)?;
            self.trim_changes(changes).await?;
        }
        save_totals(&self.inner, changes)?;
        save_order_products(&self.inner, changes.order_products)?;
        save_waiting(&self.inner, changes)?;
        save_dead_letters(&self.inner, changes)?;
        self.save_checkpoints(changes.checkpoints).await?;
        let changed = changes.batch.changed_orders().map(|row| row.order_id);
        let parked = changes.newly_parked().into_iter().map(|parked| parked.order_id);
        let unparked = changes.unparked().iter().map(|(order_id, _version, _digest)| *order_id);
        self.touched = Touched::Orders(changed.chain(parked).chain(unparked).collect());
        Ok(())
    }

    pub(super) async fn save_checkpoints(&mut self, checkpoints: &Checkpoints) -> Result<(), Error> {
        let Some(of) = &checkpoints.of else {
            return Ok(());
        };
        let mut statement = self.inner.prepare_cached(
            "insert into checkpoints \
            (partition_id, topic, cluster_id, next_offset, digest, proven_offset, proven_digest) \
            values (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
            on conflict (partition_id) do update set topic = excluded.topic, cluster_id = excluded.cluster_id, \
            next_offset = excluded.next_offset, digest = excluded.digest, proven_offset = excluded.proven_offset, \
            proven_digest = excluded.proven_digest",
        )?;
        for checkpoint in &checkpoints.partitions {
            statement.execute(params![
                checkpoint.partition,
                of.topic,
                of.cluster_id,
                checkpoint.next_offset(),
                checkpoint.last.digest,
                checkpoint.proven.offset,
                checkpoint.proven.digest,
            ])?;
        }
        Ok(())
    }
}

fn save_orders(connection: &Connection, changes: &Changes<'_>) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(
        "insert into orders \
        (order_id, customer_id, status, currency, total_minor, version, created_at, document) \
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
        on conflict (order_id) do update set status = excluded.status, total_minor = excluded.total_minor, \
        version = excluded.version, document = excluded.document",
    )?;
    let rows: Vec<_> = changes.batch.changed_orders().collect();
    for (row, document) in cores::map(rows, |row| (row, row.to_document())) {
        statement.execute(params![
            row.order_id.0.as_bytes(),
            row.customer_id.as_str(),
            row.status.as_str(),
            row.total.currency().code(),
            row.total.minor(),
            row.version.0,
            row.created_at.timestamp_micros(),
            document?,
        ])?;
    }
    Ok(())
}

fn save_history(connection: &Connection, changes: &Changes<'_>) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(
        "insert into order_history \
        (order_id, version, event_id, event_type, occurred_at, digest, message, actor, correlation_id, \
        causation_id) values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let mut applied: Vec<&Applied> = changes.batch.applied.iter().collect();
    applied.sort_unstable_by_key(|applied| (applied.recorded.order_id, applied.recorded.version));
    for applied in applied {
        let row = HistoryRow::of(&applied.recorded, &applied.record, applied.digest);
        statement.execute(params![
            row.recorded.order_id.0.as_bytes(),
            row.recorded.version.0,
            row.recorded.event_id.0.as_bytes(),
            row.recorded.event.event_type(),
            row.recorded.occurred_at.timestamp_micros(),
            row.digest,
            row.message,
            row.actor,
            row.correlation_id,
            row.causation_id,
        ])?;
    }
    Ok(())
}

fn save_changes(connection: &Connection, changes: &Changes<'_>) -> Result<(), Error> {
    // A place is taken only where the topic was made anew and nobody noticed: what is there now is what counts.
    let mut statement = connection.prepare_cached(
        "insert into changes (partition_id, record_offset, n, order_id, version, status) \
        values (?1, ?2, ?3, ?4, ?5, ?6) \
        on conflict (partition_id, record_offset, n) do update set order_id = excluded.order_id, \
        version = excluded.version, status = excluded.status",
    )?;
    for applied in &changes.batch.applied {
        statement.execute(params![
            applied.partition,
            applied.place.offset,
            applied.place.n,
            applied.recorded.order_id.0.as_bytes(),
            applied.recorded.version.0,
            applied.after.status.as_str(),
        ])?;
    }
    Ok(())
}

fn save_totals(connection: &Connection, changes: &Changes<'_>) -> Result<(), Error> {
    let mut statement = connection.prepare_cached(
        "insert into customers \
        (customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id) \
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
        on conflict (customer_id, currency) do update set orders = excluded.orders, \
        cancellations = excluded.cancellations, spend_minor = excluded.spend_minor, \
        last_order_at = excluded.last_order_at, last_order_id = excluded.last_order_id",
    )?;
    for ((customer, currency), row) in &changes.totals.customers {
        let ((last_at, last_id), spend) = (row.last_order, row.spend.to_string());
        let (customer, currency, last_id) = (customer.as_str(), currency.code(), last_id.0.as_bytes());
        statement.execute(params![customer, currency, row.orders, row.cancellations, spend, last_at, last_id])?;
    }
    let mut statement = connection.prepare_cached(
        "insert into daily_sales (day, currency, orders, cancellations, revenue_minor) \
        values (?1, ?2, ?3, ?4, ?5) \
        on conflict (day, currency) do update set orders = excluded.orders, \
        cancellations = excluded.cancellations, revenue_minor = excluded.revenue_minor",
    )?;
    for ((day, currency), row) in &changes.totals.daily_sales {
        let revenue = row.revenue.to_string();
        statement.execute(params![day, currency.code(), row.orders, row.cancellations, revenue])?;
    }
    let mut statement = connection.prepare_cached(
        "insert into product_demand (sku, currency, units, revenue_minor) values (?1, ?2, ?3, ?4) \
        on conflict (sku, currency) do update set units = excluded.units, revenue_minor = excluded.revenue_minor",
    )?;
    for ((sku, currency), row) in &changes.totals.product_demand {
        statement.execute(params![sku.as_str(), currency.code(), row.units, row.revenue.to_string()])?;
    }
    let mut statement = connection.prepare_cached(
        "insert into cancellations (day, customer_id, reason, orders) values (?1, ?2, ?3, ?4) \
        on conflict (day, customer_id, reason) do update set orders = excluded.orders",
    )?;
    for ((day, customer, reason), orders) in &changes.totals.cancellations {
        statement.execute(params![day, customer.as_str(), reason.as_str(), orders])?;
    }
    Ok(())
}

fn save_order_products(connection: &Connection, OrderProducts { come, gone }: &OrderProducts) -> Result<(), Error> {
    let mut statement =
        connection.prepare_cached("delete from order_products where sku = ?1 and created_at = ?2 and order_id = ?3")?;
    for (sku, created_at, order_id) in gone {
        statement.execute(params![sku.as_str(), created_at, order_id.0.as_bytes()])?;
    }
    let mut statement = connection.prepare_cached(
        "insert into order_products (sku, created_at, order_id, currency, total_minor) values (?1, ?2, ?3, ?4, ?5) \
        on conflict (sku, created_at, order_id) do update set total_minor = excluded.total_minor",
    )?;
    for ((sku, created_at, order_id), total) in come {
        let (order_id, currency) = (order_id.0.as_bytes(), total.currency());
        statement.execute(params![sku.as_str(), created_at, order_id, currency.code(), total.minor()])?;
    }
    Ok(())
}

fn save_waiting(connection: &Connection, changes: &Changes<'_>) -> Result<(), Error> {
    let mut statement =
        connection.prepare_cached("delete from parked where order_id = ?1 and version = ?2 and digest = ?3")?;
    for (order_id, version, digest) in changes.unparked() {
        statement.execute(params![order_id.0.as_bytes(), version.0, digest])?;
    }
    let topic = changes.checkpoints.of.as_ref().map_or("", |of| &of.topic);
    // An event that waits for another reason now has waited since it came.
    let mut statement = connection.prepare_cached(
        "insert into parked \
        (order_id, version, digest, cause, topic, partition_id, record_offset, message, headers, parked_at) \
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
        on conflict (order_id, version, digest) do update set cause = excluded.cause",
    )?;
    for parked in changes.newly_parked() {
        statement.execute(params![
            parked.order_id.0.as_bytes(),
            parked.version.0,
            parked.digest,
            parked.cause.as_str(),
            topic,
            parked.position.partition,
            parked.position.offset,
            parked.message,
            parked.headers.to_json(),
            changes.now_micros,
        ])?;
    }
    Ok(())
}

fn save_dead_letters(connection: &Connection, changes: &Changes<'_>) -> Result<(), Error> {
    let topic = changes.checkpoints.of.as_ref().map_or("", |of| &of.topic);
    // The same record read again, after a start from zero, is the same dead letter.
    let mut statement = connection.prepare_cached(
        "insert into dead_letters \
        (topic, partition_id, record_offset, digest, record_key, payload, headers, reason, detail, seen_at) \
        values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) \
        on conflict (topic, partition_id, record_offset, digest) do nothing",
    )?;
    for letter in &changes.batch.dead_letters {
        statement.execute(params![
            topic,
            letter.record.position.partition,
            letter.record.position.offset,
            letter.digest,
            letter.record.key,
            letter.record.payload,
            letter.record.headers.to_json(),
            letter.reason.code(),
            letter.detail,
            changes.now_micros,
        ])?;
    }
    Ok(())
}
