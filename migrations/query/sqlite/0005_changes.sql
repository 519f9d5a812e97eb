-- What was applied, in the order of application: what `GET /orders/stream` tells. The event itself is in order_history.
create table changes (
    -- The order of application on this node. Another node reads the partitions in another interleaving, so this never
    -- leaves it.
    seq           integer not null primary key autoincrement,
    -- The record that made the event applicable: its own, or for an event that waited the one it waited for.
    partition_id  integer not null,
    record_offset integer not null,
    -- Counts what one record made applicable: zero is its own event.
    n             integer not null,
    order_id      blob    not null,
    version       integer not null,
    -- Of the order, with this event applied.
    status        text    not null,
    unique (partition_id, record_offset, n)
) strict;

-- From which place on the changes of a partition are all there. No row: from the beginning.
create table changes_kept (
    partition_id  integer not null primary key,
    record_offset integer not null,
    n             integer not null
) strict;

-- What was applied before there was this table is not in it.
insert into changes_kept (partition_id, record_offset, n) select partition_id, next_offset - 1, 0 from checkpoints;
