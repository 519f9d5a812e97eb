-- `append` again, with rows in place of columns: PostgreSQL unpacks one array of rows sooner than eleven arrays, and binds five
-- parameters sooner than twenty-eight (docs/DESIGN.md). The procedure of 0004 stays for services that were started before
-- this migration; nothing else calls it.

-- Rows of `events`, in the order of its columns.
create type appended_event as (
    order_id uuid, version integer, event_id uuid, event_type text, schema_version smallint, payload text,
    occurred_at timestamptz, actor text, correlation_id text, causation_id text, traceparent text
);
-- The version that was decided on, and what the order becomes.
create type written_order as (order_id uuid, decided_version integer, version integer, status text, state text);
-- An answer to remember under its key. The key's lock is the first eight bytes of its SHA-256.
create type remembered_answer as (
    lock bigint, key text, fingerprint bytea, status smallint, etag text, location text, body text
);

-- A batch of commands, in one message: it locks and compares what the decisions rest on, writes all of it, commits, and
-- proves that it did. When anything is not as it was when the batch was decided, nothing is written, and the caller is told what.
create procedure append(
    -- A part that a batch has nothing of is null.
    answers remembered_answer[],
    -- Orders that go on, and orders that begin.
    known_orders written_order[],
    new_orders written_order[],
    -- Of all states.
    revision smallint,
    -- In the order of their decisions.
    appended_events appended_event[],
    -- 'committed' when it is; 'refused' when nothing was written, because of what follows.
    inout fate text,
    -- Keys that another transaction is using, and keys that have an answer.
    inout busy_keys text[], inout used_keys text[],
    -- Orders that another transaction has locked, and orders that are at another version.
    inout busy_orders uuid[], inout moved_orders uuid[]
) language plpgsql as $$
declare
    xid xid8;
begin
    if answers is not null then
        select array_agg(key) filter (where not locked) into busy_keys
        from (select key, pg_try_advisory_xact_lock(lock) as locked from unnest(answers)) as tried;
        -- A statement of its own: its snapshot is younger than the locks (rules R3).
        select array_agg(key) into used_keys
        from idempotency_keys where key = any(array(select key from unnest(answers)));
    end if;
    if known_orders is not null then
        -- Locked before the outbox's sequence is asked, so that per order its numbers are in the order of the versions (R4, R5).
        with locked as materialized (
            select order_id, version from orders
            where order_id = any(array(select order_id from unnest(known_orders)))
            order by order_id for update skip locked
        )
        select array_agg(order_id) filter (where locked.version is null),
               array_agg(order_id) filter (where locked.version <> decided_version)
        into busy_orders, moved_orders
        from unnest(known_orders) as decided left join locked using (order_id);
    end if;
    if coalesce(cardinality(busy_keys), cardinality(used_keys), cardinality(busy_orders), cardinality(moved_orders)) > 0 then
        rollback;
        fate := 'refused';
        return;
    end if;

    if appended_events is not null then
        insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at,
                            actor, correlation_id, causation_id, traceparent)
        select * from unnest(appended_events);
        insert into outbox (order_id, version)
        select order_id, version from unnest(appended_events) with ordinality order by ordinality;
    end if;
    if new_orders is not null then
        insert into orders (order_id, version, status, state, state_revision)
        select order_id, version, status, state, revision from unnest(new_orders);
    end if;
    if known_orders is not null then
        update orders
        set version = next.version, status = next.status, state = next.state, state_revision = revision, updated_at = now()
        from unnest(known_orders) as next
        where orders.order_id = next.order_id;
    end if;
    if answers is not null then
        insert into idempotency_keys (key, fingerprint, status, etag, location, body)
        select key, fingerprint, status, etag, location, body from unnest(answers);
    end if;

    xid := pg_current_xact_id();
    commit;
    -- What cannot be mistaken (rules R1). A commit that fails raises; this is the proof that it did not.
    fate := pg_xact_status(xid);
end
$$;

grant execute on procedure
    append(remembered_answer[], written_order[], written_order[], smallint, appended_event[], text, text[], text[], uuid[], uuid[])
    to order_command;
