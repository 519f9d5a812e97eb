-- How far each partition is applied. Moves in the transaction of what it covers, and in no other.
create table checkpoints (
    partition_id  integer not null primary key,
    topic         text    not null,
    -- Offsets of another cluster mean other records. Empty when the broker does not tell.
    cluster_id    text    not null,
    -- The offset of the first record that is not applied.
    next_offset   bigint  not null,
    -- Of the record at next_offset - 1, as order_history.digest. A record at that offset with another digest
    -- proves that the topic was made anew.
    digest        bytea   not null,
    -- A record that was there when the topic was last verified: where the topic was made anew and filled past
    -- next_offset before anybody looked, this one gives it away.
    proven_offset bigint  not null,
    proven_digest bytea   not null
);

-- Records that can never have come from our relay. Kept whole; nothing is skipped silently.
create table dead_letters (
    topic         text    not null collate "C",
    partition_id  integer not null,
    record_offset bigint  not null,
    -- Tells two records apart that had the same offset in a topic and in its successor.
    digest        bytea   not null,
    record_key    bytea,
    -- Null for a record without a value.
    payload       bytea,
    -- A JSON array of [name, value].
    headers       text    not null,
    -- A stable code, then the cause in words.
    reason        text    not null,
    detail        text    not null,
    -- Microseconds since 1970, by the clock of the node that set it aside.
    seen_at       bigint  not null,
    primary key (topic, partition_id, record_offset, digest)
);

-- Sound events that cannot be applied yet: an earlier one is missing (hole), this program is too old for it or for
-- one before it (newer), or it contradicts what is applied (fork). The order waits; all others go on.
create table parked (
    order_id      bytea   not null,
    version       bigint  not null,
    -- Two contradicting events of one version are both kept.
    digest        bytea   not null,
    cause         text    not null,
    topic         text    not null,
    partition_id  integer not null,
    record_offset bigint  not null,
    message       text    not null,
    headers       text    not null,
    -- Microseconds since 1970, by the clock of the node that parked it.
    parked_at     bigint  not null,
    primary key (order_id, version, digest)
);
