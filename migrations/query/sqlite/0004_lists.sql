-- What lists walk. Every list is read by key along an index, whatever it is sorted and filtered by; filters beyond the
-- one that drives are checked row by row.

create index orders_in_status on orders (status, created_at, order_id);
-- Amounts of different currencies have no order, so a list by amount is one of a currency.
create index orders_by_total on orders (currency, total_minor, order_id);

-- Which orders have which products among their items now.
create table order_products (
    sku         text    not null,
    -- As orders.created_at, which never changes: the list of a product's orders is walked here, newest first.
    created_at  integer not null,
    order_id    blob    not null,
    -- As in orders, for the list by amount.
    currency    text    not null,
    total_minor integer not null,
    primary key (sku, created_at, order_id)
) strict, without rowid;
create index order_products_by_total on order_products (sku, currency, total_minor, order_id);

insert into order_products (sku, created_at, order_id, currency, total_minor)
select distinct item.value ->> 'sku', o.created_at, o.order_id, o.currency, o.total_minor
from orders as o, json_each(o.document, '$.items') as item;

create index dead_letters_newest on dead_letters (seen_at, topic, partition_id, record_offset);

-- Statistics of a large read model, written once instead of gathered: which index drives a list must not depend on
-- when somebody last ran `analyze`. A customer has few orders, a status has many.
analyze sqlite_schema;
insert into sqlite_stat1 (tbl, idx, stat) values
    ('orders', 'orders_newest', '1000000 2 1'),
    ('orders', 'orders_of_customer', '1000000 20 2 1'),
    ('orders', 'orders_in_status', '1000000 200000 2 1'),
    ('orders', 'orders_by_total', '1000000 300000 10 1'),
    ('order_products', 'order_products', '2000000 20000 2 1'),
    ('order_products', 'order_products_by_total', '2000000 20000 10000 10 1');
