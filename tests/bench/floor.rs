//! What a database takes: the rows that the projection writes, made beforehand, into our own tables.

use domain::schema;
use rusqlite::{Connection, params};
use sqlx::PgPool;

use crate::events::NewOrder;

/// A new order with the document that the projection makes of it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) order: NewOrder,
    pub(crate) document: String,
    pub(crate) n: u64,
}

impl Row {
    fn id(&self) -> &[u8] {
        self.order.order_id.0.as_bytes()
    }

    fn micros(&self) -> i64 {
        self.order.created_at.timestamp_micros()
    }

    fn offset(&self) -> i64 {
        i64::try_from(self.n).unwrap()
    }
}

const CORRELATION: &str = "0193a1b2-0000-7000-8000-000000000012";

/// One transaction of prepared statements, a statement per row, in the order of each table's key; the sums of a key once.
pub(crate) fn write_sqlite(connection: &mut Connection, rows: &[Row]) {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    {
        let prepare = |sql| transaction.prepare_cached(sql).unwrap();
        let mut orders = prepare(
            "insert into orders (order_id, customer_id, status, currency, total_minor, version, created_at, document) values (?, ?, 'CREATED', 'USD', ?, 1, ?, ?) on conflict (order_id) do update set status = excluded.status, total_minor = excluded.total_minor, version = excluded.version, document = excluded.document",
        );
        let mut history = prepare(
            "insert into order_history (order_id, version, event_id, event_type, occurred_at, digest, message, actor, correlation_id, causation_id) values (?, 1, ?, 'OrderCreated', ?, ?, ?, null, ?, ?)",
        );
        let mut changes = prepare(
            "insert into changes (partition_id, record_offset, n, order_id, version, status) values (0, ?, 0, ?, 1, 'CREATED')",
        );
        let mut products = prepare(
            "insert into order_products (sku, created_at, order_id, currency, total_minor) values (?, ?, ?, 'USD', ?) on conflict (sku, created_at, order_id) do update set total_minor = excluded.total_minor",
        );
        for row in rows {
            let digest = schema::digest(row.order.message.as_bytes());
            let (id, at, total) = (row.id(), row.micros(), row.order.total.minor());
            orders.execute(params![id, row.order.customer_id, total, at, row.document]).unwrap();
            let event_id = row.order.recorded.event_id.0;
            let message = &row.order.message;
            history.execute(params![id, event_id.as_bytes(), at, digest, message, CORRELATION, CORRELATION]).unwrap();
            changes.execute(params![row.offset(), id]).unwrap();
        }
        let mut lines: Vec<_> = rows.iter().flat_map(|row| row.order.skus.iter().map(move |sku| (sku, row))).collect();
        lines.sort_unstable_by_key(|(sku, row)| (*sku, row.micros(), row.order.order_id));
        for (sku, row) in lines {
            products.execute(params![sku, row.micros(), row.id(), row.order.total.minor()]).unwrap();
        }
        let mut customers = prepare(
            "insert into customers (customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id) values (?, 'USD', 1, 0, '0', ?, ?) on conflict (customer_id, currency) do update set orders = orders + 1, last_order_at = excluded.last_order_at, last_order_id = excluded.last_order_id",
        );
        for row in distinct(rows, |row| std::slice::from_ref(&row.order.customer_id)) {
            customers.execute(params![row.1, row.0.micros(), row.0.id()]).unwrap();
        }
        let mut demand = prepare(
            "insert into product_demand (sku, currency, units, revenue_minor) values (?, 'USD', 2, '3000') on conflict (sku, currency) do update set units = units + 2",
        );
        for row in distinct(rows, |row| &row.order.skus) {
            demand.execute([row.1]).unwrap();
        }
        prepare("insert into daily_sales (day, currency, orders, cancellations, revenue_minor) values (20000, 'USD', 1, 0, '0') on conflict (day, currency) do update set orders = orders + 1").execute([]).unwrap();
    }
    transaction.commit().unwrap();
}

/// The first row of every key.
fn distinct<'r>(rows: &'r [Row], keys: impl Fn(&'r Row) -> &'r [String]) -> Vec<(&'r Row, &'r String)> {
    let mut seen = std::collections::BTreeMap::new();
    for row in rows {
        for key in keys(row) {
            seen.entry(key).or_insert(row);
        }
    }
    seen.into_iter().map(|(key, row)| (row, key)).collect()
}

fn column<T>(rows: &[Row], of: impl Fn(&Row) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// One transaction, one `unnest` upsert per table.
pub(crate) async fn write_postgres(pool: &PgPool, rows: &[Row]) {
    let ids = column(rows, |row| row.id().to_vec());
    let (at, totals) = (column(rows, Row::micros), column(rows, |row| row.order.total.minor()));
    let mut transaction = pool.begin().await.unwrap();
    sqlx::query("insert into orders (order_id, customer_id, status, currency, total_minor, version, created_at, document) select id, customer, 'CREATED', 'USD', total, 1, at, document from unnest($1::bytea[], $2::text[], $3::bigint[], $4::bigint[], $5::text[]) as r (id, customer, total, at, document) on conflict (order_id) do update set status = excluded.status, total_minor = excluded.total_minor, version = excluded.version, document = excluded.document")
        .bind(&ids).bind(column(rows, |row| row.order.customer_id.clone())).bind(&totals).bind(&at)
        .bind(column(rows, |row| row.document.clone())).execute(&mut *transaction).await.unwrap();
    sqlx::query("insert into order_history (order_id, version, event_id, event_type, occurred_at, digest, message, actor, correlation_id, causation_id) select id, 1, event, 'OrderCreated', at, digest, message, null, $6, $6 from unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::bytea[], $5::text[]) as r (id, event, at, digest, message)")
        .bind(&ids).bind(column(rows, |row| row.order.recorded.event_id.0.as_bytes().to_vec())).bind(&at)
        .bind(column(rows, |row| schema::digest(row.order.message.as_bytes()).to_vec()))
        .bind(column(rows, |row| row.order.message.clone())).bind(CORRELATION).execute(&mut *transaction).await.unwrap();
    sqlx::query("insert into changes (partition_id, record_offset, n, order_id, version, status) select 0, place, 0, id, 1, 'CREATED' from unnest($1::bigint[], $2::bytea[]) as r (place, id)")
        .bind(column(rows, Row::offset)).bind(&ids).execute(&mut *transaction).await.unwrap();
    let twice = |column: &dyn Fn(&Row) -> i64| rows.iter().flat_map(|row| [column(row); 2]).collect::<Vec<i64>>();
    sqlx::query("insert into order_products (sku, created_at, order_id, currency, total_minor) select sku, at, id, 'USD', total from unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[]) as r (sku, at, id, total) on conflict (sku, created_at, order_id) do update set total_minor = excluded.total_minor")
        .bind(rows.iter().flat_map(|row| row.order.skus.clone()).collect::<Vec<_>>()).bind(twice(&Row::micros))
        .bind(rows.iter().flat_map(|row| [row.id().to_vec(), row.id().to_vec()]).collect::<Vec<_>>())
        .bind(twice(&|row| row.order.total.minor())).execute(&mut *transaction).await.unwrap();
    let customers = distinct(rows, |row| std::slice::from_ref(&row.order.customer_id));
    sqlx::query("insert into customers (customer_id, currency, orders, cancellations, spend_minor, last_order_at, last_order_id) select customer, 'USD', 1, 0, '0', at, id from unnest($1::text[], $2::bigint[], $3::bytea[]) as r (customer, at, id) on conflict (customer_id, currency) do update set orders = customers.orders + 1, last_order_at = excluded.last_order_at, last_order_id = excluded.last_order_id")
        .bind(customers.iter().map(|(_row, key)| (*key).clone()).collect::<Vec<_>>())
        .bind(customers.iter().map(|(row, _key)| row.micros()).collect::<Vec<_>>())
        .bind(customers.iter().map(|(row, _key)| row.id().to_vec()).collect::<Vec<_>>())
        .execute(&mut *transaction).await.unwrap();
    sqlx::query("insert into product_demand (sku, currency, units, revenue_minor) select sku, 'USD', 2, '3000' from unnest($1::text[]) as r (sku) on conflict (sku, currency) do update set units = product_demand.units + 2")
        .bind(distinct(rows, |row| &row.order.skus).into_iter().map(|(_row, key)| key.clone()).collect::<Vec<_>>())
        .execute(&mut *transaction).await.unwrap();
    sqlx::query("insert into daily_sales (day, currency, orders, cancellations, revenue_minor) values (20000, 'USD', 1, 0, '0') on conflict (day, currency) do update set orders = daily_sales.orders + 1")
        .execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
}
