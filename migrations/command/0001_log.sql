-- The event log, the aggregate rows that cache its fold, and the outbox: written by one transaction.

create table events (
    order_id uuid not null,
    -- 1, 2, 3 … without a gap; the primary key makes a fork impossible (rules R4).
    version integer not null check (version > 0),
    event_id uuid not null,
    event_type text not null,
    schema_version smallint not null,
    -- The exact text that is published and hashed. Not jsonb, which would reorder and reformat it (rules R13).
    payload text not null,
    -- By the clock of the service that decided. Never used to order events.
    occurred_at timestamptz not null,
    actor text,
    correlation_id text,
    causation_id text,
    traceparent text,
    constraint events_pkey primary key (order_id, version)
);

-- Finds a span of time for `republish` at next to no cost: events arrive in the order of their times.
create index events_occurred_at on events using brin (occurred_at);

create function events_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'events are append-only' using errcode = 'restrict_violation';
end
$$;

-- For whoever owns the table; the service's own role may not even try (0003_roles.sql).
create trigger events_no_change before update or delete on events
    for each row execute function events_append_only();
create trigger events_no_truncate before truncate on events
    for each statement execute function events_append_only();

create table orders (
    order_id uuid not null,
    -- The version of the last event folded into `state`.
    version integer not null check (version > 0),
    status text not null,
    -- The fold of the order's events: a cache that `order-command check` compares and events can rebuild.
    state text not null,
    -- Which revision of the code wrote `state`; another one folds the events anew.
    state_revision smallint not null,
    updated_at timestamptz not null default now(),
    constraint orders_pkey primary key (order_id)
) with (fillfactor = 70); -- room for the next version on the same page, so that updates stay HOT

-- One row per event that the relay must publish. Insert-only: progress is kept beside it, never in it, so that a held
-- snapshot cannot bloat it (rules R5). It points at the event instead of repeating its payload.
create sequence outbox_seq cache 1;

create table outbox (
    -- Taken while the aggregate's row is locked: per order, sequence order is version order is commit order.
    seq bigint not null default nextval('outbox_seq'),
    order_id uuid not null,
    version integer not null,
    -- Which transaction wrote it. The relay reads by the difference of two snapshots, so a low `seq` that commits late
    -- is still seen.
    xid xid8 not null default pg_current_xact_id(),
    constraint outbox_pkey primary key (seq)
) partition by range (seq);

create index outbox_xid on outbox (xid, seq);

alter sequence outbox_seq owned by outbox.seq;

create table idempotency_keys (
    key text not null,
    -- SHA-256 of method, path and body: the same key with another request is a mistake of the client.
    fingerprint bytea not null,
    -- The whole answer, so that a repeat is answered with the same bytes.
    status smallint not null,
    etag text,
    location text,
    body text not null,
    created_at timestamptz not null default now(),
    constraint idempotency_keys_pkey primary key (key)
);

create index idempotency_keys_created_at on idempotency_keys using brin (created_at);

create table products (
    sku text not null,
    unit_price_minor bigint not null check (unit_price_minor >= 0),
    currency text not null,
    name text,
    updated_at timestamptz not null default now(),
    constraint products_pkey primary key (sku)
);
