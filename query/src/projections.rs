//! The read models, one file each.

pub mod orders;

pub mod order_history;

pub mod order_products;

pub mod customers;

pub mod daily_sales;

pub mod product_demand;

pub mod cancellations;
