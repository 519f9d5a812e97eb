-- Who publishes, and how far it is.

-- One row: the right to publish. Every taking raises `epoch`, so whoever lost it without noticing is told apart (R23).
create table relay_lease (
    only_row boolean not null default true check (only_row),
    epoch bigint not null,
    owner text not null,
    expires_at timestamptz not null,
    -- Somebody who asks the owner to hand over at its next heartbeat: `republish`, `reconcile`.
    wanted_by text,
    wanted_until timestamptz,
    constraint relay_lease_pkey primary key (only_row)
);

insert into relay_lease (epoch, owner, expires_at) values (0, '', '-infinity');

-- Insert-only and read from its newest end. A row of an older epoch that arrives late sorts below the newer epoch's
-- rows, so a zombie cannot turn progress back; and no row is updated, so a held snapshot cannot bloat it.
create table relay_progress (
    epoch bigint not null,
    id bigint not null generated always as identity,
    -- Everything that `done` sees is published. Of what `until` sees beyond that, everything up to `seq` is.
    done pg_snapshot not null,
    until pg_snapshot,
    seq bigint not null,
    -- Per partition, the offset after the last record that the broker acknowledged.
    next_offsets bigint[] not null,
    cluster_id text,
    saved_at timestamptz not null default now(),
    constraint relay_progress_pkey primary key (epoch, id)
);

-- Nothing is published yet; rows of any transaction lie beyond this snapshot.
insert into relay_progress (epoch, done, seq, next_offsets) values (0, '1:1:', 0, '{}');

-- Partitions of the outbox, five million rows each, made ahead of the sequence. Attached rather than created in place:
-- that takes no lock that would stop inserts.
create function outbox_partitions_ensure() returns integer
    language plpgsql security definer set lock_timeout = '200ms' as $$
declare
    rows_per_partition constant bigint := 5000000;
    partitions_ahead constant bigint := 2;
    current_partition bigint := (select last_value / rows_per_partition from outbox_seq);
    made integer := 0;
    name text;
begin
    -- Two relays at the same moment: one makes them.
    if not pg_try_advisory_xact_lock(hashtext('outbox_partitions')) then
        return 0;
    end if;
    for n in current_partition .. current_partition + partitions_ahead loop
        name := 'outbox_p' || n;
        if to_regclass(name) is null then
            execute format('create table %I (like outbox including defaults including constraints)', name);
            execute format('alter table %I add primary key (seq)', name);
            execute format('create index on %I (xid, seq)', name);
            execute format('alter table outbox attach partition %I for values from (%s) to (%s)',
                name, n * rows_per_partition, (n + 1) * rows_per_partition);
            made := made + 1;
        end if;
    end loop;
    return made;
end
$$;

-- Drops partitions that are published to the last row and older than `keep`; the log stays the source for everything.
-- A drop waits only briefly for its lock, because every insert would queue up behind it; the next call tries again.
create function outbox_partitions_purge(done pg_snapshot, keep interval) returns integer
    language plpgsql security definer set lock_timeout = '50ms' as $$
declare
    current_partition bigint := (select last_value / 5000000 from outbox_seq);
    dropped integer := 0;
    candidate record;
    purgeable boolean;
begin
    for candidate in
        select c.relname as name, substring(c.relname from 'outbox_p(\d+)')::bigint as n
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox'::regclass
        order by n
    loop
        exit when candidate.n >= current_partition;
        execute format(
            'select not exists (select from %1$I where not pg_visible_in_snapshot(xid, $1))
                and coalesce((select e.occurred_at < now() - $2
                    from %1$I o join events e using (order_id, version) order by o.seq desc limit 1), true)',
            candidate.name) into purgeable using done, keep;
        exit when not purgeable;
        execute format('drop table %I', candidate.name);
        dropped := dropped + 1;
    end loop;
    return dropped;
exception
    when lock_not_available then return 0;
end
$$;

-- They run as their owner, on the tables of the schema that they are in: `public`, unless the owner's search_path names another one.
do $$
begin
    execute format('alter function outbox_partitions_ensure() set search_path = %I, pg_temp', current_schema());
    execute format('alter function outbox_partitions_purge(pg_snapshot, interval) set search_path = %I, pg_temp',
        current_schema());
end
$$;

select outbox_partitions_ensure();
