-- The tables of migrations/query/sqlite, column for column: the same events end in the same rows in either database.
-- Text that sorts a list compares by its bytes (collate "C"), as SQLite does, whatever the locale of the database.

-- One row per order: the document that `GET /orders/{id}` serves, and the columns that lists filter by.
create table orders (
    -- The 16 bytes of the id. Ours are UUIDv7, so new orders arrive at the end of the index.
    order_id    bytea  not null primary key,
    customer_id text   not null collate "C",
    status      text   not null,
    -- ISO 4217; every amount of the order is in it.
    currency    text   not null collate "C",
    -- Exact, in the currency's minor units (cents).
    total_minor bigint not null,
    -- How many of the order's events are applied: the next one must be version + 1.
    version     bigint not null,
    -- Microseconds since 1970, as the order tells it; the sort key of lists.
    created_at  bigint not null,
    -- The answer to the reader, byte for byte: text, because jsonb would write it anew.
    document    text   not null
);

-- Lists are newest first and walk this backwards; orders of the same microsecond are told apart by id.
create index orders_newest on orders (created_at, order_id);
create index orders_of_customer on orders (customer_id, created_at, order_id);

-- Every applied event: the audit trail, and what a repeated or contradicting event is compared with.
create table order_history (
    order_id       bytea  not null,
    version        bigint not null,
    event_id       bytea  not null,
    event_type     text   not null,
    -- Microseconds since 1970, by the clock of the service that decided the event.
    occurred_at    bigint not null,
    -- The first 16 bytes of the SHA-256 of `message`.
    digest         bytea  not null,
    -- The exact text that was on the topic.
    message        text   not null,
    -- Who and what caused the event, where the record's headers tell.
    actor          text,
    correlation_id text,
    causation_id   text,
    primary key (order_id, version)
);
