-- Whose transaction ids the relay's progress is made of. A dump that is restored on another server brings rows and snapshots
-- along whose ids mean nothing there (docs/DESIGN.md, "A moved database").

-- Rows that were written before this migration are adopted if every row of the outbox was written by the transaction that it
-- names, in this server: then nothing was moved so far. Otherwise the relay compares the log with the topic once. Looked at
-- first, because no relay can save anything from the next statement on.
select set_config('relay.written_here', (not exists (select from outbox where xmin <> xid::xid))::text, true);

-- The server that gave the transaction ids, where the role may ask for it.
alter table relay_progress add column system_identifier bigint;
-- The transaction that saved the row. Whatever copies rows from server to server writes them in other transactions, so a
-- row is this server's own if `xmin` is what it names.
alter table relay_progress add column saved_by xid8;
alter table relay_progress alter column saved_by set default pg_current_xact_id();

update relay_progress set saved_by = pg_current_xact_id()
where current_setting('relay.written_here')::boolean
  and (epoch, id) = (select epoch, id from relay_progress order by epoch desc, id desc limit 1);

-- Gives rows of another server a transaction id of this one: those among the next `rows_max` rows after `after`. Returns the
-- last of these rows, or null when there are none. Rows that were written here stay as they are.
create function outbox_adopt(after bigint, rows_max integer) returns bigint
    language plpgsql security definer set lock_timeout = '2s' as $$
declare
    last bigint := (select max(seq) from (select seq from outbox where seq > after order by seq limit rows_max) as page);
begin
    update outbox set xid = pg_current_xact_id() where seq > after and seq <= last and xmin <> xid::xid;
    return last;
end
$$;

-- Drops partitions that are published to the last row and older than `keep`, as before. What is published is no word of the
-- caller's: it is what the relay has saved, in this server.
create function outbox_partitions_purge(keep interval) returns integer
    language plpgsql security definer set lock_timeout = '50ms' as $$
declare
    current_partition bigint := (select last_value / 5000000 from outbox_seq);
    -- Null, so that nothing is dropped, when it was saved in another server.
    published pg_snapshot := (
        select case when xmin = saved_by::xid then done end from relay_progress order by epoch desc, id desc limit 1);
    dropped integer := 0;
    candidate record;
    purgeable boolean;
begin
    for candidate in
        select c.relname as name, substring(c.relname from 'outbox_p(\d+)')::bigint as n
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox'::regclass and published is not null
        order by n
    loop
        exit when candidate.n >= current_partition;
        execute format(
            'select not exists (select from %1$I where not pg_visible_in_snapshot(xid, $1) or xmin <> xid::xid)
                and coalesce((select e.occurred_at < now() - $2
                    from %1$I o join events e using (order_id, version) order by o.seq desc limit 1), true)',
            candidate.name) into purgeable using published, keep;
        exit when not purgeable;
        execute format('drop table %I', candidate.name);
        dropped := dropped + 1;
    end loop;
    return dropped;
exception
    when lock_not_available then return 0;
end
$$;

-- For relays that were started before this migration. Their word for what is published does not count either.
create or replace function outbox_partitions_purge(done pg_snapshot, keep interval) returns integer
    language sql security definer as $$ select outbox_partitions_purge(keep) $$;

-- These functions run as their owner, on the tables of the schema that they are in, for the service's role alone.
do $$
declare
    name text;
begin
    foreach name in array array['outbox_adopt(bigint, integer)', 'outbox_partitions_purge(interval)',
                                'outbox_partitions_purge(pg_snapshot, interval)', 'outbox_partitions_ensure()'] loop
        execute format('alter function %s set search_path = %I, pg_temp', name, current_schema());
        execute format('revoke execute on function %s from public', name);
        execute format('grant execute on function %s to order_command', name);
    end loop;
end
$$;
