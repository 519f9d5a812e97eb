-- Sums over many orders. A sum of money is kept as the decimal text of its exact number of minor units, because
-- it may outgrow 64 bits, and because the same rows as in SQLite can be compared with it. Each fact counts with its
-- own event, so a sum can pass below zero: a refund counts on the day of the refund.

-- What a customer ordered and spent, per currency.
create table customers (
    customer_id   text   not null collate "C",
    currency      text   not null collate "C",
    orders        bigint not null,
    cancellations bigint not null,
    -- Paid minus refunded, in minor units.
    spend_minor   text   not null,
    -- The newest order by creation time, then by id.
    last_order_at bigint not null,
    last_order_id bytea  not null,
    primary key (customer_id, currency)
);

-- What happened on a day (UTC), per currency.
create table daily_sales (
    -- Days since 1970-01-01, so that the key sorts and stays small.
    day           bigint not null,
    currency      text   not null collate "C",
    orders        bigint not null,
    cancellations bigint not null,
    -- Payments minus refunds of the day, in minor units.
    revenue_minor text   not null,
    primary key (day, currency)
);

-- What is wanted of a product: orders that are not cancelled, per currency.
create table product_demand (
    sku           text   not null collate "C",
    currency      text   not null collate "C",
    units         bigint not null,
    -- Price times pieces, in minor units; lines that tell no price count their pieces alone.
    revenue_minor text   not null,
    primary key (sku, currency)
);
