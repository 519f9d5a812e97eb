-- What lists walk. Every list is read by key along an index, whatever it is sorted and filtered by; filters beyond the
-- one that drives are checked row by row.

create index orders_in_status on orders (status, created_at, order_id);
-- Amounts of different currencies have no order, so a list by amount is one of a currency.
create index orders_by_total on orders (currency, total_minor, order_id);

-- Which orders have which products among their items now.
create table order_products (
    sku         text   not null collate "C",
    -- As orders.created_at, which never changes: the list of a product's orders is walked here, newest first.
    created_at  bigint not null,
    order_id    bytea  not null,
    -- As in orders, for the list by amount.
    currency    text   not null collate "C",
    total_minor bigint not null,
    primary key (sku, created_at, order_id)
);
create index order_products_by_total on order_products (sku, currency, total_minor, order_id);

create index dead_letters_newest on dead_letters (seen_at, topic, partition_id, record_offset);
