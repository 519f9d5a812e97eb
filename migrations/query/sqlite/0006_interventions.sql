-- What operators wished and what came of it. A row, because any node may be asked and one of them projects; and kept,
-- because it is the record of who changed what.
create table interventions (
    -- A UUIDv7: what was wished first is granted first.
    id           blob    not null primary key,
    -- Such as `discard-dead-letter`.
    kind         text    not null,
    -- What it is about: a JSON object, or null where it is about all.
    target       text    not null,
    reason       text,
    -- Who says to be asking.
    actor        text,
    -- Microseconds since 1970, by the clock of the node that was asked.
    requested_at integer  not null,
    -- How far it is carried out, where that takes several transactions: the last one that was looked at, as JSON.
    reached      text,
    -- What came of it so far, as JSON. Written in the transaction that brought it about.
    outcome      text,
    -- Microseconds since 1970, by the clock of the node that finished it.
    done_at      integer
) strict;

create index interventions_undone on interventions (id) where done_at is null;

-- Discarded: known for good, and neither applied nor listed when it is read again.
alter table dead_letters add column discarded_at integer;
alter table dead_letters add column discard_reason text;
alter table parked add column discarded_at integer;
alter table parked add column discard_reason text;

drop index dead_letters_newest;
create index dead_letters_newest on dead_letters (seen_at, topic, partition_id, record_offset)
    where discarded_at is null;
create index dead_letters_discarded on dead_letters (topic, record_offset) where discarded_at is not null;

-- Who heals looks for them all the time.
create index parked_holes on parked (order_id, parked_at) where cause = 'hole' and discarded_at is null;
