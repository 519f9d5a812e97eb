-- Expired keys are deleted from the oldest on. A block range index loses sight of them: new keys fill the space that deleted ones leave,
-- until every range of blocks holds keys of all times and each look for expired ones reads the whole table.
--
-- Nothing can store a key while the index is built. With many millions of them, build it beforehand, concurrently, under this name.
create index if not exists idempotency_keys_expiry on idempotency_keys (created_at);
drop index idempotency_keys_created_at;

-- As many keys are deleted as are stored. Vacuum in small portions, so that their space is used again soon.
alter table idempotency_keys set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);
