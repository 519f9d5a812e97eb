-- What the service may do. It logs in as somebody who is a member of this role and then becomes it, so that not even a
-- fault in it can change the past: no update, delete or truncate of events.

do $$
begin
    create role order_command nologin;
exception
    -- Roles belong to the whole cluster: another database of it may have made this one already, even right now.
    when duplicate_object or unique_violation then null;
end
$$;

do $$
begin
    -- A superuser may become anybody; whoever else migrates needs the membership to hand it on.
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant order_command to %I', current_user);
    end if;
end
$$;

grant usage on schema public to order_command;
grant select, insert on events to order_command;
grant select, insert, update on orders to order_command;
grant select, insert on outbox to order_command;
grant usage, select on sequence outbox_seq to order_command;
grant select, insert, delete on idempotency_keys to order_command;
grant select, insert, update on products to order_command;
grant select, update on relay_lease to order_command;
grant select, insert, delete on relay_progress to order_command;
grant execute on function outbox_partitions_ensure(), outbox_partitions_purge(pg_snapshot, interval) to order_command;
