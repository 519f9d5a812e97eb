//! Rows that PostgreSQL makes by itself: the limit of what it takes, and outboxes to drain.

/// An event, its aggregate row and its outbox row, 500 times, in ids that arrive in order as ours do.
///
/// Takes the payload and the state.
pub(crate) const INSERT_500: &str = "
    with ids as materialized (
        select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
                || '7' || substr(md5(random()::text || n), 1, 19))::uuid as id
        from generate_series(1, 500) n
    ), e as (
        insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at)
        select id, 1, id, 'OrderCreated', 2, $1, now() from ids
    ), o as (
        insert into orders (order_id, version, status, state, state_revision) select id, 1, 'CREATED', $2, 1 from ids
    )
    insert into outbox (order_id, version) select id, 1 from ids";

/// A message of an order of two items.
pub(crate) const PAYLOAD: &str = r#"{"event_type":"OrderCreated","order_id":"0193a1b2-0000-7000-8000-000000000001","customer_id":"customer-1","items":[{"sku":"prod-1","quantity":2,"unit_price":15.00},{"sku":"prod-2","quantity":1,"unit_price":12.50}],"total":42.50,"created_at":"2026-11-23T10:00:00.123456Z","currency":"USD","event_id":"0193a1b2-0000-7000-8000-000000000011","version":1,"schema_version":2,"occurred_at":"2026-11-23T10:00:00.123456Z"}"#;
/// The state that it leads to.
pub(crate) const STATE: &str = r#"{"status":"CREATED","basket":{"customer_id":"customer-1","lines":[{"sku":"prod-1","quantity":2,"unit_price":{"minor":1500,"currency":"USD"}},{"sku":"prod-2","quantity":1,"unit_price":{"minor":1250,"currency":"USD"}}],"total":{"minor":4250,"currency":"USD"}}}"#;
