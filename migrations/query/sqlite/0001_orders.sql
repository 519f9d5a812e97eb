-- One row per order: the document that `GET /orders/{id}` serves, and the columns that lists filter by.
create table orders (
    -- The 16 bytes of the id. Ours are UUIDv7, so new orders arrive at the end of the index.
    order_id    blob    not null primary key,
    customer_id text    not null,
    status      text    not null,
    -- ISO 4217; every amount of the order is in it.
    currency    text    not null,
    -- Exact, in the currency's minor units (cents).
    total_minor integer not null,
    -- How many of the order's events are applied: the next one must be version + 1.
    version     integer not null,
    -- Microseconds since 1970, as the order tells it; the sort key of lists.
    created_at  integer not null,
    -- The answer to the reader, byte for byte: served as it is, and read back to apply the next event.
    document    text    not null
) strict;

-- Lists are newest first and walk this backwards; orders of the same microsecond are told apart by id.
create index orders_newest on orders (created_at, order_id);
create index orders_of_customer on orders (customer_id, created_at, order_id);

-- Every applied event: the audit trail, and what a repeated or contradicting event is compared with.
create table order_history (
    order_id       blob    not null,
    version        integer not null,
    event_id       blob    not null,
    event_type     text    not null,
    -- Microseconds since 1970, by the clock of the service that decided the event.
    occurred_at    integer not null,
    -- The first 16 bytes of the SHA-256 of `message`.
    digest         blob    not null,
    -- The exact text that was on the topic.
    message        text    not null,
    -- Who and what caused the event, where the record's headers tell.
    actor          text,
    correlation_id text,
    causation_id   text,
    primary key (order_id, version)
) strict;
