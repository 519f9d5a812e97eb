//! What "the same read model" means: every projected row, tables and rows in a fixed order, in either store.

use serde_json::Value;
use sqlx::AssertSqlSafe;

use super::Place;

/// A table, how many of its first columns are its key, and its columns; those of bytes are shown as `hex` digits.
const TABLES: [(&str, usize, &str); 7] = [
    ("orders", 1, "hex order_id, customer_id, status, currency, total_minor, version, created_at, document"),
    (
        "order_history",
        2,
        "hex order_id, version, hex event_id, event_type, occurred_at, hex digest, message, actor, correlation_id, \
         causation_id",
    ),
    ("customers", 2, "customer_id, currency, orders, cancellations, spend_minor, last_order_at, hex last_order_id"),
    ("daily_sales", 2, "day, currency, orders, cancellations, revenue_minor"),
    ("product_demand", 2, "sku, currency, units, revenue_minor"),
    ("cancellations", 3, "day, customer_id, reason, orders"),
    ("order_products", 3, "sku, created_at, hex order_id, currency, total_minor"),
];

/// All rows of all tables.
pub(super) async fn dump(place: &Place) -> Vec<Value> {
    let mut dump = Vec::new();
    for (table, key, columns) in TABLES {
        let columns: Vec<_> =
            columns.split(", ").map(|column| column.rsplit_once(' ').unwrap_or(("", column))).collect();
        let key: Vec<_> = columns[..key].iter().map(|(_hex, column)| *column).collect();
        let statement = |array: &str, hex: (&str, &str)| {
            let shown = columns.iter().map(|(as_hex, column)| match *as_hex {
                "hex" => format!("{}{column}{}", hex.0, hex.1),
                _ => (*column).to_owned(),
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            AssertSqlSafe(format!("select {array}({shown}) from {table} order by {}", key.join(", ")))
        };
        match place {
            Place::Folder(_folder, raw) => {
                let statement = statement("json_array", ("hex(", ")"));
                let rows: Vec<String> = sqlx::query_scalar(statement).fetch_all(raw).await.unwrap();
                dump.extend(rows.iter().map(|row| serde_json::from_str::<Value>(row).unwrap()));
            }
            Place::Database(database) => {
                let statement = statement("json_build_array", ("upper(encode(", ", 'hex'))"));
                let rows: Vec<Value> = sqlx::query_scalar(statement).fetch_all(&database.pool()).await.unwrap();
                dump.extend(rows);
            }
        }
    }
    dump
}
