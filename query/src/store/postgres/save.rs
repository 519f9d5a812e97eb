//! Rows in bulk, for the projector: one statement per table and batch, its rows handed over as one array per column.

use super::Transaction;
use crate::checkpoint::Checkpoints;
use crate::projections::order_history::HistoryRow;
use crate::projections::order_products::OrderProducts;
use crate::store::{Changes, Error};

impl Transaction {
    pub(crate) async fn save(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        self.save_orders(changes).await?;
        self.save_history(changes).await?;
        if changes.batch.streamed {
            self.save_changes(changes).await?;
        }
        self.save_customers(changes).await?;
        self.save_daily_sales(changes).await?;
        self.save_product_demand(changes).await?;
        self.save_cancellations(changes).await?;
        self.save_order_products(changes.order_products).await?;
        self.save_waiting(changes).await?;
        self.save_dead_letters(changes).await?;
        self.save_checkpoints(changes.checkpoints).await
    }

    async fn save_orders(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes.batch.changed_orders().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let documents: Result<Vec<String>, _> = rows.iter().map(|row| row.to_document()).collect();
        sqlx::query(
            "insert into orders \
             (order_id, customer_id, status, currency, total_minor, version, created_at, document) \
             select * from unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], \
             $7::bigint[], $8::text[]) \
             on conflict (order_id) do update set status = excluded.status, total_minor = excluded.total_minor, \
             version = excluded.version, document = excluded.document",
        )
        .bind(column(&rows, |row| row.order_id.0.into_bytes()))
        .bind(column(&rows, |row| row.customer_id.as_str()))
        .bind(column(&rows, |row| row.status.as_str()))
        .bind(column(&rows, |row| String::from(row.total.currency())))
        .bind(column(&rows, |row| row.total.minor()))
        .bind(column(&rows, |row| i64::from(row.version.0)))
        .bind(column(&rows, |row| row.created_at.timestamp_micros()))
        .bind(documents?)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_history(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let applied = changes.batch.applied.iter();
        let rows: Vec<_> =
            applied.map(|applied| HistoryRow::of(&applied.recorded, &applied.record, applied.digest)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into order_history \
             (order_id, version, event_id, event_type, occurred_at, digest, message, actor, correlation_id, \
             causation_id) \
             select * from unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::text[], $5::bigint[], $6::bytea[], \
             $7::text[], $8::text[], $9::text[], $10::text[])",
        )
        .bind(column(&rows, |row| row.recorded.order_id.0.into_bytes()))
        .bind(column(&rows, |row| i64::from(row.recorded.version.0)))
        .bind(column(&rows, |row| row.recorded.event_id.0.into_bytes()))
        .bind(column(&rows, |row| row.recorded.event.event_type()))
        .bind(column(&rows, |row| row.recorded.occurred_at.timestamp_micros()))
        .bind(column(&rows, |row| row.digest))
        .bind(column(&rows, |row| row.message))
        .bind(column(&rows, |row| row.actor))
        .bind(column(&rows, |row| row.correlation_id))
        .bind(column(&rows, |row| row.causation_id))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_changes(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes.batch.applied.iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        // A place is taken only where the topic was made anew and nobody noticed: what is there now is what counts.
        sqlx::query(
            "insert into changes (partition_id, record_offset, n, order_id, version, status) \
             select partition_id, record_offset, n, order_id, version, status from unnest($1::integer[], \
             $2::bigint[], $3::bigint[], $4::bytea[], $5::bigint[], $6::text[]) with ordinality \
             as row (partition_id, record_offset, n, order_id, version, status, at) order by at \
             on conflict (partition_id, record_offset, n) do update set order_id = excluded.order_id, \
             version = excluded.version, status = excluded.status",
        )
        .bind(column(&rows, |applied| applied.partition))
        .bind(column(&rows, |applied| applied.place.offset))
        .bind(column(&rows, |applied| applied.place.n))
        .bind(column(&rows, |applied| applied.recorded.order_id.0.into_bytes()))
        .bind(column(&rows, |applied| i64::from(applied.recorded.version.0)))
        .bind(column(&rows, |applied| applied.after.status.as_str()))
        .execute(&mut *self.inner)
        .await?;
        self.trim_changes(changes).await
    }

    async fn save_customers(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes.totals.customers.iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into customers \
             (customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id) \
             select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::text[], $6::bigint[], \
             $7::bytea[]) \
             on conflict (customer_id, currency) do update set orders = excluded.orders, \
             cancellations = excluded.cancellations, spend_minor = excluded.spend_minor, \
             last_order_at = excluded.last_order_at, last_order_id = excluded.last_order_id",
        )
        .bind(column(&rows, |((customer, _currency), _row)| customer.as_str()))
        .bind(column(&rows, |((_customer, currency), _row)| currency.code()))
        .bind(column(&rows, |(_key, row)| row.orders))
        .bind(column(&rows, |(_key, row)| row.cancellations))
        .bind(column(&rows, |(_key, row)| row.spend.to_string()))
        .bind(column(&rows, |(_key, row)| row.last_order.0))
        .bind(column(&rows, |(_key, row)| row.last_order.1.0.into_bytes()))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_daily_sales(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes.totals.daily_sales.iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into daily_sales (day, currency, orders, cancellations, revenue_minor) \
             select * from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) \
             on conflict (day, currency) do update set orders = excluded.orders, \
             cancellations = excluded.cancellations, revenue_minor = excluded.revenue_minor",
        )
        .bind(column(&rows, |((day, _currency), _row)| *day))
        .bind(column(&rows, |((_day, currency), _row)| currency.code()))
        .bind(column(&rows, |(_key, row)| row.orders))
        .bind(column(&rows, |(_key, row)| row.cancellations))
        .bind(column(&rows, |(_key, row)| row.revenue.to_string()))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_product_demand(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes.totals.product_demand.iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into product_demand (sku, currency, units, revenue_minor) \
             select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[]) \
             on conflict (sku, currency) do update set units = excluded.units, revenue_minor = excluded.revenue_minor",
        )
        .bind(column(&rows, |((sku, _currency), _row)| sku.as_str()))
        .bind(column(&rows, |((_sku, currency), _row)| currency.code()))
        .bind(column(&rows, |(_key, row)| row.units))
        .bind(column(&rows, |(_key, row)| row.revenue.to_string()))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_cancellations(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows: Vec<_> = changes.totals.cancellations.iter().collect();
        if rows.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into cancellations (day, customer_id, reason, orders) \
             select * from unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[]) \
             on conflict (day, customer_id, reason) do update set orders = excluded.orders",
        )
        .bind(column(&rows, |((day, _customer, _reason), _orders)| *day))
        .bind(column(&rows, |((_day, customer, _reason), _orders)| customer.as_str()))
        .bind(column(&rows, |((_day, _customer, reason), _orders)| reason.as_str()))
        .bind(column(&rows, |(_key, orders)| **orders))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_order_products(&mut self, OrderProducts { come, gone }: &OrderProducts) -> Result<(), Error> {
        if !gone.is_empty() {
            sqlx::query(
                "delete from order_products where (sku, created_at, order_id) in \
                 (select * from unnest($1::text[], $2::bigint[], $3::bytea[]))",
            )
            .bind(column(gone, |(sku, _created_at, _order_id)| sku.as_str()))
            .bind(column(gone, |(_sku, created_at, _order_id)| *created_at))
            .bind(column(gone, |(_sku, _created_at, order_id)| order_id.0.into_bytes()))
            .execute(&mut *self.inner)
            .await?;
        }
        if come.is_empty() {
            return Ok(());
        }
        sqlx::query(
            "insert into order_products (sku, created_at, order_id, currency, total_minor) \
             select * from unnest($1::text[], $2::bigint[], $3::bytea[], $4::text[], $5::bigint[]) \
             on conflict (sku, created_at, order_id) do update set total_minor = excluded.total_minor",
        )
        .bind(column(come, |((sku, _created_at, _order_id), _total)| sku.as_str()))
        .bind(column(come, |((_sku, created_at, _order_id), _total)| *created_at))
        .bind(column(come, |((_sku, _created_at, order_id), _total)| order_id.0.into_bytes()))
        .bind(column(come, |(_key, total)| String::from(total.currency())))
        .bind(column(come, |(_key, total)| total.minor()))
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_waiting(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let gone = changes.unparked();
        if !gone.is_empty() {
            sqlx::query(
                "delete from parked where (order_id, version, digest) in \
                 (select * from unnest($1::bytea[], $2::bigint[], $3::bytea[]))",
            )
            .bind(column(gone, |(order_id, _version, _digest)| order_id.0.into_bytes()))
            .bind(column(gone, |(_order_id, version, _digest)| i64::from(version.0)))
            .bind(column(gone, |(_order_id, _version, digest)| *digest))
            .execute(&mut *self.inner)
            .await?;
        }
        let rows = changes.newly_parked();
        if rows.is_empty() {
            return Ok(());
        }
        // An event that waits for another reason now has waited since it came.
        sqlx::query(
            "insert into parked \
             (order_id, version, digest, cause, topic, partition_id, record_offset, message, headers, parked_at) \
             select order_id, version, digest, cause, $9, partition_id, record_offset, message, headers, $10 \
             from unnest($1::bytea[], $2::bigint[], $3::bytea[], $4::text[], $5::integer[], $6::bigint[], $7::text[], \
             $8::text[]) as r (order_id, version, digest, cause, partition_id, record_offset, message, headers) \
             on conflict (order_id, version, digest) do update set cause = excluded.cause",
        )
        .bind(column(&rows, |parked| parked.order_id.0.into_bytes()))
        .bind(column(&rows, |parked| i64::from(parked.version.0)))
        .bind(column(&rows, |parked| parked.digest))
        .bind(column(&rows, |parked| parked.cause.as_str()))
        .bind(column(&rows, |parked| parked.position.partition))
        .bind(column(&rows, |parked| parked.position.offset))
        .bind(column(&rows, |parked| parked.message.as_str()))
        .bind(column(&rows, |parked| parked.headers.to_json()))
        .bind(topic(changes))
        .bind(changes.now_micros)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_dead_letters(&mut self, changes: &Changes<'_>) -> Result<(), Error> {
        let rows = &changes.batch.dead_letters;
        if rows.is_empty() {
            return Ok(());
        }
        // The same record read again, after a start from zero, is the same dead letter.
        sqlx::query(
            "insert into dead_letters \
             (topic, partition_id, record_offset, digest, record_key, payload, headers, reason, detail, seen_at) \
             select $9, partition_id, record_offset, digest, record_key, payload, headers, reason, detail, $10 \
             from unnest($1::integer[], $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], $6::text[], $7::text[], \
             $8::text[]) as r (partition_id, record_offset, digest, record_key, payload, headers, reason, detail) \
             on conflict (topic, partition_id, record_offset, digest) do nothing",
        )
        .bind(column(rows, |letter| letter.record.position.partition))
        .bind(column(rows, |letter| letter.record.position.offset))
        .bind(column(rows, |letter| letter.digest))
        .bind(column(rows, |letter| letter.record.key.as_deref()))
        .bind(column(rows, |letter| letter.record.payload.as_deref()))
        .bind(column(rows, |letter| letter.record.headers.to_json()))
        .bind(column(rows, |letter| letter.reason.code()))
        .bind(column(rows, |letter| letter.detail.as_str()))
        .bind(topic(changes))
        .bind(changes.now_micros)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    async fn save_checkpoints(&mut self, checkpoints: &Checkpoints) -> Result<(), Error> {
        let rows = &checkpoints.partitions;
        let Some(of) = &checkpoints.of else {
            return Ok(());
        };
        sqlx::query(
            "insert into checkpoints \
             (partition_id, topic, cluster_id, next_offset, digest, proven_offset, proven_digest) \
             select partition_id, $6, $7, next_offset, digest, proven_offset, proven_digest \
             from unnest($1::integer[], $2::bigint[], $3::bytea[], $4::bigint[], $5::bytea[]) \
             as r (partition_id, next_offset, digest, proven_offset, proven_digest) \
             on conflict (partition_id) do update set topic = excluded.topic, cluster_id = excluded.cluster_id, \
             next_offset = excluded.next_offset, digest = excluded.digest, proven_offset = excluded.proven_offset, \
             proven_digest = excluded.proven_digest",
        )
        .bind(column(rows, |checkpoint| checkpoint.partition))
        .bind(column(rows, |checkpoint| checkpoint.next_offset()))
        .bind(column(rows, |checkpoint| checkpoint.last.digest))
        .bind(column(rows, |checkpoint| checkpoint.proven.offset))
        .bind(column(rows, |checkpoint| checkpoint.proven.digest))
        .bind(&of.topic)
        .bind(&of.cluster_id)
        .execute(&mut *self.inner)
        .await?;
        Ok(())
    }

    pub(crate) async fn forget_checkpoints(&mut self) -> Result<(), Error> {
        sqlx::query("delete from checkpoints").execute(&mut *self.inner).await?;
        self.forget_changes().await
    }
}

/// One column of all rows.
fn column<'r, R, C>(rows: &'r [R], of: impl Fn(&'r R) -> C) -> Vec<C> {
    rows.iter().map(of).collect()
}

fn topic<'c>(changes: &Changes<'c>) -> &'c str {
    changes.checkpoints.of.as_ref().map_or("", |of| &of.topic)
}
