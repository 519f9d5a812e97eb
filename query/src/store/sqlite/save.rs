//! Rows in bulk, for the projector: one statement per table and batch, its rows handed over as one JSON array.

use serde::Serialize;

use super::Transaction;
use super::load::hex;
use super::recent::Touched;
use crate::checkpoint::Checkpoints;
use crate::hex::encode as hex_of;
use crate::projections::order_history::HistoryRow;
use crate::projections::order_products::OrderProducts;
use crate::store::{Changes, Error};

impl Transaction<'_> {
    pub(crate) async fn save(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        self.save_orders(changes).await?;
        self.save_history(changes).await?;
        if changes.batch.streamed {
            self.save_changes(changes).await?;
        }
        self.save_totals(changes).await?;
        self.save_order_products(changes).await?;
        self.save_waiting(changes).await?;
        self.save_dead_letters(changes).await?;
        self.save_checkpoints(changes.checkpoints).await?;
        let changed = changes.batch.changed_orders().map(|row| row.order_id);
        let parked = changes.newly_parked().into_iter().map(|parked| parked.order_id);
        let unparked = changes.unparked().iter().map(|(order_id, _version, _digest)| *order_id);
        self.touched = Touched::Orders(changed.chain(parked).chain(unparked).collect());
        Ok(())
    }

    async fn save_orders(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let mut rows = Vec::new();
        for row in changes.batch.changed_orders() {
            rows.push((
                hex(row.order_id),
                row.customer_id.as_str(),
                row.status.as_str(),
                row.total.currency(),
                row.total.minor(),
                row.version,
                row.created_at.timestamp_micros(),
                row.to_document()?,
            ));
        }
        let statement = "insert into orders \
            (order_id, customer_id, status, currency, total_minor, version, created_at, document) \
            select unhex(value ->> 0), value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, \
            value ->> 7 from json_each(?1) where true \
            on conflict (order_id) do update set status = excluded.status, total_minor = excluded.total_minor, \
            version = excluded.version, document = excluded.document";
        self.execute(statement, &rows).await
    }

    async fn save_history(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let applied = changes.batch.applied.iter();
        let rows: Vec<_> = applied
            .map(|applied| HistoryRow::of(&applied.recorded, &applied.record, applied.digest))
            .map(|row| {
                (
                    hex(row.recorded.order_id),
                    row.recorded.version,
                    row.recorded.event_id.0.simple().to_string(),
                    row.recorded.event.event_type(),
                    row.recorded.occurred_at.timestamp_micros(),
                    hex_of(&row.digest),
                    row.message,
                    row.actor,
                    row.correlation_id,
                    row.causation_id,
                )
            })
            .collect();
        let statement = "insert into order_history \
            (order_id, version, event_id, event_type, occurred_at, digest, message, actor, correlation_id, \
            causation_id) \
            select unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4, \
            unhex(value ->> 5), value ->> 6, value ->> 7, value ->> 8, value ->> 9 from json_each(?1)";
        self.execute(statement, &rows).await
    }

    async fn save_changes(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes
            .batch
            .applied
            .iter()
            .map(|applied| {
                let (order_id, version) = (hex(applied.recorded.order_id), applied.recorded.version);
                let place = applied.place;
                (applied.partition, place.offset, place.n, order_id, version, applied.after.status.as_str())
            })
            .collect();
        if rows.is_empty() {
            return Ok(());
        }
        // A place is taken only where the topic was made anew and nobody noticed: what is there now is what counts.
        let statement = "insert into changes (partition_id, record_offset, n, order_id, version, status) \
            select value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3), value ->> 4, value ->> 5 \
            from json_each(?1) where true order by key \
            on conflict (partition_id, record_offset, n) do update set order_id = excluded.order_id, \
            version = excluded.version, status = excluded.status";
        self.execute(statement, &rows).await?;
        self.trim_changes(changes).await
    }

    async fn save_totals(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let customers: Vec<_> = changes
            .totals
            .customers
            .iter()
            .map(|((customer, currency), row)| {
                let (last_at, last_id) = row.last_order;
                let spend = row.spend.to_string();
                (customer, currency, row.orders, row.cancellations, spend, last_at, hex(last_id))
            })
            .collect();
        let statement = "insert into customers \
            (customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id) \
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, \
            unhex(value ->> 6) from json_each(?1) where true \
            on conflict (customer_id, currency) do update set orders = excluded.orders, \
            cancellations = excluded.cancellations, spend_minor = excluded.spend_minor, \
            last_order_at = excluded.last_order_at, last_order_id = excluded.last_order_id";
        self.execute(statement, &customers).await?;

        let days: Vec<_> = changes
            .totals
            .daily_sales
            .iter()
            .map(|((day, currency), row)| (day, currency, row.orders, row.cancellations, row.revenue.to_string()))
            .collect();
        let statement = "insert into daily_sales (day, currency, orders, cancellations, revenue_minor) \
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 from json_each(?1) where true \
            on conflict (day, currency) do update set orders = excluded.orders, \
            cancellations = excluded.cancellations, revenue_minor = excluded.revenue_minor";
        self.execute(statement, &days).await?;

        let products: Vec<_> = changes
            .totals
            .product_demand
            .iter()
            .map(|((sku, currency), row)| (sku, currency, row.units, row.revenue.to_string()))
            .collect();
        let statement = "insert into product_demand (sku, currency, units, revenue_minor) \
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?1) where true \
            on conflict (sku, currency) do update set units = excluded.units, \
            revenue_minor = excluded.revenue_minor";
        self.execute(statement, &products).await?;

        let cancellations: Vec<_> = changes
            .totals
            .cancellations
            .iter()
            .map(|((day, customer, reason), orders)| (day, customer, reason, orders))
            .collect();
        let statement = "insert into cancellations (day, customer_id, reason, orders) \
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3 from json_each(?1) where true \
            on conflict (day, customer_id, reason) do update set orders = excluded.orders";
        self.execute(statement, &cancellations).await
    }

    async fn save_order_products(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let OrderProducts { come, gone } = changes.order_products;
        let gone: Vec<_> = gone.iter().map(|(sku, created_at, order_id)| (sku, created_at, hex(*order_id))).collect();
        let statement = "delete from order_products where (sku, created_at, order_id) in \
            (select value ->> 0, value ->> 1, unhex(value ->> 2) from json_each(?1))";
        self.execute(statement, &gone).await?;
        let come: Vec<_> = come
            .iter()
            .map(|((sku, created_at, order_id), total)| {
                (sku, created_at, hex(*order_id), total.currency(), total.minor())
            })
            .collect();
        let statement = "insert into order_products (sku, created_at, order_id, currency, total_minor) \
            select value ->> 0, value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4 from json_each(?1) where true \
            on conflict (sku, created_at, order_id) do update set total_minor = excluded.total_minor";
        self.execute(statement, &come).await
    }

    async fn save_waiting(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let gone: Vec<_> = changes
            .unparked()
            .iter()
            .map(|(order_id, version, digest)| (hex(*order_id), version, hex_of(digest)))
            .collect();
        let statement = "delete from parked where (order_id, version, digest) in \
            (select unhex(value ->> 0), value ->> 1, unhex(value ->> 2) from json_each(?1))";
        self.execute(statement, &gone).await?;

        let topic = changes.checkpoints.of.as_ref().map_or("", |of| &of.topic);
        let parked: Vec<_> = changes
            .newly_parked()
            .into_iter()
            .map(|parked| {
                (
                    hex(parked.order_id),
                    parked.version,
                    hex_of(&parked.digest),
                    parked.cause.as_str(),
                    topic,
                    parked.position.partition,
                    parked.position.offset,
                    &parked.message,
                    parked.headers.to_json(),
                    changes.now_micros,
                )
            })
            .collect();
        // An event that waits for another reason now has waited since it came.
        let statement = "insert into parked \
            (order_id, version, digest, cause, topic, partition_id, record_offset, message, headers, parked_at) \
            select unhex(value ->> 0), value ->> 1, unhex(value ->> 2), value ->> 3, value ->> 4, value ->> 5, \
            value ->> 6, value ->> 7, value ->> 8, value ->> 9 from json_each(?1) where true \
            on conflict (order_id, version, digest) do update set cause = excluded.cause";
        self.execute(statement, &parked).await
    }

    async fn save_dead_letters(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let topic = changes.checkpoints.of.as_ref().map_or("", |of| &of.topic);
        let letters: Vec<_> = changes
            .batch
            .dead_letters
            .iter()
            .map(|letter| {
                (
                    topic,
                    letter.record.position.partition,
                    letter.record.position.offset,
                    hex_of(&letter.digest),
                    letter.record.key.as_deref().map(hex_of),
                    letter.record.payload.as_deref().map(hex_of),
                    letter.record.headers.to_json(),
                    letter.reason.code(),
                    &letter.detail,
                    changes.now_micros,
                )
            })
            .collect();
        // The same record read again, after a start from zero, is the same dead letter.
        let statement = "insert into dead_letters \
            (topic, partition_id, record_offset, digest, record_key, payload, headers, reason, detail, seen_at) \
            select value ->> 0, value ->> 1, value ->> 2, unhex(value ->> 3), unhex(value ->> 4), \
            unhex(value ->> 5), value ->> 6, value ->> 7, value ->> 8, value ->> 9 from json_each(?1) where true \
            on conflict (topic, partition_id, record_offset, digest) do nothing";
        self.execute(statement, &letters).await
    }

    pub(super) async fn save_checkpoints(&mut self, checkpoints: &Checkpoints) -> Result<(), Error> {
        let Some(of) = &checkpoints.of else {
            return Ok(());
        };
        let rows: Vec<_> = checkpoints
            .partitions
            .iter()
            .map(|checkpoint| {
                (
                    checkpoint.partition,
                    &of.topic,
                    &of.cluster_id,
                    checkpoint.next_offset(),
                    hex_of(&checkpoint.last.digest),
                    checkpoint.proven.offset,
                    hex_of(&checkpoint.proven.digest),
                )
            })
            .collect();
        let statement = "insert into checkpoints \
            (partition_id, topic, cluster_id, next_offset, digest, proven_offset, proven_digest) \
            select value ->> 0, value ->> 1, value ->> 2, value ->> 3, unhex(value ->> 4), value ->> 5, \
            unhex(value ->> 6) from json_each(?1) where true \
            on conflict (partition_id) do update set topic = excluded.topic, cluster_id = excluded.cluster_id, \
            next_offset = excluded.next_offset, digest = excluded.digest, proven_offset = excluded.proven_offset, \
            proven_digest = excluded.proven_digest";
        self.execute(statement, &rows).await
    }

    pub(crate) async fn forget_checkpoints(&mut self) -> Result<(), Error> {
        sqlx::query("delete from checkpoints").execute(&mut *self.inner).await?;
        self.forget_changes().await
    }

    async fn execute<T: Serialize>(&mut self, statement: &'static str, rows: &[T]) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let rows = serde_json::to_string(rows)?;
        sqlx::query(statement).bind(rows).execute(&mut *self.inner).await?;
        Ok(())
    }
}
