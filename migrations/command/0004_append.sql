-- A batch of commands, in one message: it locks and compares what the decisions rest on, writes all of it, commits, and
-- proves that it did. When anything is not as it was when the batch was decided, nothing is written, and the caller is told what.
--
-- The arrays of a part are columns: the n-th elements are one row. A part that a batch has nothing of is null.
create procedure append(
    -- Answers to remember under their keys. A key's lock is the first eight bytes of its SHA-256.
    key_locks bigint[], keys text[], fingerprints bytea[], reply_statuses smallint[], etags text[], locations text[],
    bodies text[],
    -- Orders that go on, at the version that was decided on, and what they become.
    known_ids uuid[], known_versions integer[], next_versions integer[], next_statuses text[], next_states text[],
    -- New orders.
    new_ids uuid[], new_versions integer[], new_statuses text[], new_states text[],
    -- Of all states.
    revision smallint,
    -- The events, in the order of their decisions.
    event_orders uuid[], event_versions integer[], event_ids uuid[], event_types text[], schema_versions smallint[],
    payloads text[], event_times timestamptz[], actors text[], correlation_ids text[], causation_ids text[],
    traceparents text[],
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
    if keys is not null then
        select array_agg(key) filter (where not locked) into busy_keys
        from (
            select key, pg_try_advisory_xact_lock(lock) as locked from unnest(key_locks, keys) as k (lock, key)
        ) as tried;
        -- A statement of its own: its snapshot is younger than the locks (rules R3).
        select array_agg(key) into used_keys from idempotency_keys where key = any(keys);
    end if;
    if known_ids is not null then
        -- Locked before the outbox's sequence is asked, so that per order its numbers are in the order of the versions (R4, R5).
        with locked as materialized (
            select order_id, version from orders where order_id = any(known_ids) order by order_id for update skip locked
        )
        select array_agg(order_id) filter (where locked.version is null),
               array_agg(order_id) filter (where locked.version <> decided.version)
        into busy_orders, moved_orders
        from unnest(known_ids, known_versions) as decided (order_id, version) left join locked using (order_id);
    end if;
    if coalesce(cardinality(busy_keys), cardinality(used_keys), cardinality(busy_orders), cardinality(moved_orders)) > 0 then
        rollback;
        fate := 'refused';
        return;
    end if;

    if event_orders is not null then
        insert into events (order_id, version, event_id, event_type, schema_version, payload, occurred_at,
                            actor, correlation_id, causation_id, traceparent)
        select * from unnest(event_orders, event_versions, event_ids, event_types, schema_versions, payloads, event_times,
                             actors, correlation_ids, causation_ids, traceparents);
        insert into outbox (order_id, version)
        select order_id, version
        from unnest(event_orders, event_versions) with ordinality as e (order_id, version, n) order by n;
    end if;
    if new_ids is not null then
        insert into orders (order_id, version, status, state, state_revision)
        select order_id, version, status, state, revision
        from unnest(new_ids, new_versions, new_statuses, new_states) as o (order_id, version, status, state);
    end if;
    if known_ids is not null then
        update orders
        set version = next.version, status = next.status, state = next.state, state_revision = revision, updated_at = now()
        from unnest(known_ids, next_versions, next_statuses, next_states) as next (order_id, version, status, state)
        where orders.order_id = next.order_id;
    end if;
    if keys is not null then
        insert into idempotency_keys (key, fingerprint, status, etag, location, body)
        select * from unnest(keys, fingerprints, reply_statuses, etags, locations, bodies);
    end if;

    xid := pg_current_xact_id();
    commit;
    -- What cannot be mistaken (rules R1). A commit that fails raises; this is the proof that it did not.
    fate := pg_xact_status(xid);
end
$$;

grant execute on procedure append to order_command;
