-- What was applied, in the order of application: what `GET /orders/stream` tells. The event itself is in order_history.
create table changes (
    -- The order of application. Not unique by decree: after a crash of the server it may count a part anew.
    seq           bigint  not null generated always as identity,
    -- The record that made the event applicable: its own, or for an event that waited the one it waited for.
    partition_id  integer not null,
    record_offset bigint  not null,
    -- Counts what one record made applicable: zero is its own event.
    n             bigint  not null,
    order_id      bytea   not null,
    version       bigint  not null,
    -- Of the order, with this event applied.
    status        text    not null,
    primary key (partition_id, record_offset, n)
);

create index changes_in_order on changes (seq);

-- From which place on the changes of a partition are all there. No row: from the beginning.
create table changes_kept (
    partition_id  integer not null primary key,
    record_offset bigint  not null,
    n             bigint  not null
);

-- What was applied before there was this table is not in it.
insert into changes_kept (partition_id, record_offset, n) select partition_id, next_offset - 1, 0 from checkpoints;
