-- What the service may do. It logs in as somebody who is a member of this role and then becomes it, so that not even a
-- fault in it can change the past: no update, delete or truncate of events.

do $$
begin
    if not exists (select from pg_roles where rolname = 'order_command') then
        create role order_command nologin;
    end if;
exception
    -- Roles belong to the whole cluster: another database of it may have made this one just now.
    when duplicate_object or unique_violation then null;
    when insufficient_privilege then
        raise exception 'the role order_command does not exist, and % may not create roles', current_user
            using errcode = 'insufficient_privilege',
                  hint = format('ask an administrator for: create role order_command nologin; grant order_command to %I',
                      current_user);
end
$$;

do $$
declare
    may_become boolean;
begin
    -- Whoever migrates becomes the role later, or hands it on. A superuser may become anybody. Since PostgreSQL 16 a member may be
    -- one who may not become the role.
    if current_setting('server_version_num')::integer >= 160000 then
        may_become := pg_has_role(current_user, 'order_command', 'set');
    else
        may_become := pg_has_role(current_user, 'order_command', 'member');
    end if;
    if not may_become then
        execute format('grant order_command to %I', current_user);
    end if;
exception
    when insufficient_privilege then
        raise exception '% may not become the role order_command', current_user
            using errcode = 'insufficient_privilege',
                  hint = format('ask an administrator for: grant order_command to %I', current_user);
end
$$;

do $$
begin
    execute format('grant usage on schema %I to order_command', current_schema());
end
$$;
grant select, insert on events to order_command;
grant select, insert, update on orders to order_command;
grant select, insert on outbox to order_command;
grant usage, select on sequence outbox_seq to order_command;
grant select, insert, delete on idempotency_keys to order_command;
grant select, insert, update on products to order_command;
grant select, update on relay_lease to order_command;
grant select, insert, delete on relay_progress to order_command;
grant execute on function outbox_partitions_ensure(), outbox_partitions_purge(pg_snapshot, interval) to order_command;
