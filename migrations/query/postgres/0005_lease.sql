-- The right to project: one row, one owner, until its lease runs out or is given back. SQLite has no such table: its
-- file belongs to one node.
create table projection_lease (
    -- The fencing token: grows with every owner, and every transaction of the projection locks the row under its own
    -- epoch before it commits. It is the key, so that a new owner (who changes it) waits for such a lock, and a
    -- heartbeat (which does not) passes it.
    epoch      bigint      not null primary key,
    -- Which process, for people.
    owner      text        not null,
    -- By this server's clock alone.
    expires_at timestamptz not null
);

insert into projection_lease (epoch, owner, expires_at) values (0, 'nobody', '-infinity');
