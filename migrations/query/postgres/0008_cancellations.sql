-- Why orders were given up: how many on a day (UTC), of a customer, for a reason. Begins empty: what was applied before is in it
-- when the read model is built anew.
create table cancellations (
    -- Days since 1970-01-01, so that the key sorts and stays small.
    day         bigint not null,
    customer_id text   not null collate "C",
    -- At most 500 characters and none that controls, so that it fits into a key of either database.
    reason      text   not null collate "C",
    orders      bigint not null,
    primary key (day, customer_id, reason)
);

-- What the list of one customer walks.
create index cancellations_of_customer on cancellations (customer_id, day, reason);
