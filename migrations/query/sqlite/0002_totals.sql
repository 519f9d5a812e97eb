-- Sums over many orders. A sum of money is kept as the decimal text of its exact number of minor units, because
-- it may outgrow the 64 bits of an integer, and because a float is never exact. Each fact counts with its own
-- event, so a sum can pass below zero: a refund counts on the day of the refund.

-- What a customer ordered and spent, per currency.
create table customers (
    customer_id   text    not null,
    currency      text    not null,
    orders        integer not null,
    cancellations integer not null,
    -- Paid minus refunded, in minor units.
    spend_minor   text    not null,
    -- The newest order by creation time, then by id.
    last_order_at integer not null,
    last_order_id blob    not null,
    primary key (customer_id, currency)
) strict, without rowid;

-- What happened on a day (UTC), per currency.
create table daily_sales (
    -- Days since 1970-01-01, so that the key sorts and stays small.
    day           integer not null,
    currency      text    not null,
    orders        integer not null,
    cancellations integer not null,
    -- Payments minus refunds of the day, in minor units.
    revenue_minor text    not null,
    primary key (day, currency)
) strict, without rowid;

-- What is wanted of a product: orders that are not cancelled, per currency.
create table product_demand (
    sku           text    not null,
    currency      text    not null,
    units         integer not null,
    -- Price times pieces, in minor units; lines that tell no price count their pieces alone.
    revenue_minor text    not null,
    primary key (sku, currency)
) strict, without rowid;
