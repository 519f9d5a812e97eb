-- A table to see that a cloned database is a migrated one.
create table guest (name text primary key);
