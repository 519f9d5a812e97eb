//! Every list walks an index, in the order in which it is shown, however many orders there are.

use domain::OrderId;
use domain::order::Status;
use query::store::answer::{ListFilter, Page, Sort};
use uuid::Uuid;

use crate::world::{Kind, World, on_both_stores, usd};

on_both_stores!(every_list_walks_an_index);

/// So many that a planner has something to lose. SQLite is told of a million in its migrations.
const ORDERS: &str = "insert into orders (order_id, customer_id, status, currency, total_minor, version, created_at, \
        document)
    select decode(md5(n::text), 'hex'), 'customer-' || n % 5000, case when n % 100 = 0 then 'CREATED' else 'PAID' end, \
        'USD', n % 9999, 2, n / 2, repeat('x', 300) from generate_series(1, 50000) as n;
    insert into order_products select 'prod-' || n % 50, n / 2, decode(md5(n::text), 'hex'), 'USD', n % 9999 \
        from generate_series(1, 50000) as n;
    analyze orders; analyze order_products";

/// How the databases say that they use an index.
const INDEXED: [&str; 4] = ["USING INDEX", "USING PRIMARY KEY", "Index Scan", "Index Only Scan"];

fn filters() -> Vec<ListFilter> {
    let all = ListFilter::default;
    let (customer_id, sku) = (Some("customer-7".parse().unwrap()), Some("prod-7".parse().unwrap()));
    vec![
        all(),
        ListFilter { status: Some(Status::Paid), ..all() },
        ListFilter { status: Some(Status::Created), ..all() },
        ListFilter { customer_id: customer_id.clone(), ..all() },
        ListFilter { customer_id: customer_id.clone(), status: Some(Status::Paid), ..all() },
        ListFilter { sku: sku.clone(), ..all() },
        ListFilter { sku: sku.clone(), status: Some(Status::Paid), ..all() },
        ListFilter { sku, customer_id, ..all() },
        ListFilter { created_from_micros: Some(5), created_to_micros: Some(50), ..all() },
        ListFilter { min_total_minor: Some(5), max_total_minor: Some(9000), currency: Some(usd()), ..all() },
    ]
}

async fn every_list_walks_an_index(kind: Kind) {
    let world = World::new(kind).await;
    world.tamper("select 1", ORDERS).await;
    for filter in filters() {
        for sort in [Sort::Newest, Sort::Oldest, Sort::Dearest, Sort::Cheapest] {
            let by_total = !sort.is_by_creation();
            let filter = ListFilter { currency: filter.currency.or(by_total.then(usd)), ..filter.clone() };
            for after in [None, Some((20_000, OrderId(Uuid::from_u128(7))))] {
                let plan = world.store.list_plan(&filter, &Page { sort, after }, 51).await.unwrap().join("\n");
                let told = format!("{sort:?} {after:?} {filter:?}\n{plan}");
                assert!(INDEXED.iter().any(|indexed| plan.contains(indexed)), "{told}");
                for walked_whole in ["Seq Scan", "SCAN o\n", "SCAN p\n"] {
                    assert!(!format!("{plan}\n").contains(walked_whole), "{told}");
                }
                // What an index has narrowed down may be sorted: a customer's orders, or, where the list is by total,
                // those of a status, a time or a product. No list by time is, and no list of everything.
                let narrowed = filter.status.is_some() || filter.created_from_micros.is_some() || filter.sku.is_some();
                let sorted = plan.contains("Sort") || plan.contains("TEMP B-TREE");
                assert!(!sorted || filter.customer_id.is_some() || (by_total && narrowed), "{told}");
            }
        }
    }
}
