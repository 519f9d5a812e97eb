//! The one question whose text depends on what is asked: a list of orders. Written once for both databases, which
//! understand the same SQL here.
//!
//! - **Invariant:** every list walks an index from a key, and never counts rows off.

use sqlx::{Database, Encode, QueryBuilder, Type};

use super::answer::{ListFilter, Page};

/// What the databases do not have in common.
pub(super) struct Dialect {
    /// What stands before a statement that is to be explained, and not run.
    pub(super) explain: &'static str,
    /// What stands before a column by which rows are filtered, and no index is to be chosen. SQLite gathers no
    /// statistics by which it could choose well.
    pub(super) filter_only: &'static str,
}

/// Where a list takes its rows from.
struct Source {
    from: &'static str,
    join: &'static str,
    /// The table that has the columns by which lists are sorted.
    walked: &'static str,
}

impl Source {
    /// A product's orders are walked along `order_products`, unless a customer's few orders lead.
    fn of(filter: &ListFilter) -> Self {
        if filter.sku.is_some() && filter.customer_id.is_none() {
            let from = "order_products as p cross join orders as o";
            Self { from, join: "o.order_id = p.order_id", walked: "p" }
        } else {
            Self { from: "orders as o", join: "true", walked: "o" }
        }
    }
}

/// A page, as `key, order_id, document`. `before` is nothing, or what explains it.
pub(super) fn page<DB>(
    before: &str,
    dialect: &Dialect,
    filter: &ListFilter,
    page: &Page,
    limit: u32,
) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    Vec<u8>: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let source = Source::of(filter);
    let by_creation = page.sort.is_by_creation();
    let key = if by_creation { "created_at" } else { "total_minor" };
    let Source { from, walked, .. } = source;
    let select = format!("{before}select {walked}.{key}, o.order_id, o.document from {from} where ");
    let mut query = QueryBuilder::new(select);
    // Where time sorts, amounts only filter.
    let total = if by_creation { dialect.filter_only } else { "" };
    conditions(&mut query, &narrowed(filter, page), &source, total);
    let (after, direction) = if page.sort.is_descending() { ("<", "desc") } else { (">", "asc") };
    if let Some((value, order_id)) = page.after {
        query.push(format!(" and ({walked}.{key}, {walked}.order_id) {after} (")).push_bind(value).push(", ");
        query.push_bind(order_id.0.as_bytes().to_vec()).push(")");
    }
    query.push(format!(" order by {walked}.{key} {direction}, {walked}.order_id {direction} limit "));
    query.push_bind(i64::from(limit));
    query
}

/// The filter, with a bound on what sorts drawn up to the key: SQLite begins to walk at such a bound, and not at the
/// key.
fn narrowed(filter: &ListFilter, page: &Page) -> ListFilter {
    let mut filter = filter.clone();
    let Some((value, _order_id)) = page.after else { return filter };
    let (least, most) = if page.sort.is_by_creation() {
        (&mut filter.created_from_micros, &mut filter.created_to_micros)
    } else {
        (&mut filter.min_total_minor, &mut filter.max_total_minor)
    };
    if page.sort.is_descending() {
        *most = most.map(|most| most.min(value));
    } else {
        *least = least.map(|least| least.max(value));
    }
    filter
}

/// How many orders there are on all pages together, counted up to `most`.
pub(super) fn count<DB>(filter: &ListFilter, most: u32) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let source = Source::of(filter);
    let mut query = QueryBuilder::new(format!("select count(*) from (select 1 from {} where ", source.from));
    conditions(&mut query, filter, &source, "");
    query.push(" limit ").push_bind(i64::from(most)).push(") as counted");
    query
}

fn conditions<DB>(query: &mut QueryBuilder<DB>, filter: &ListFilter, source: &Source, total: &str)
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let walked = source.walked;
    query.push(source.join);
    match &filter.sku {
        Some(sku) if walked == "p" => drop(query.push(" and p.sku = ").push_bind(sku.as_str().to_owned())),
        Some(sku) => {
            query.push(
                " and exists (select 1 from order_products as p where p.order_id = o.order_id \
                 and p.created_at = o.created_at and p.sku = ",
            );
            query.push_bind(sku.as_str().to_owned()).push(")");
        }
        None => {}
    }
    if let Some(customer) = &filter.customer_id {
        query.push(" and o.customer_id = ").push_bind(customer.as_str().to_owned());
    }
    if let Some(status) = filter.status {
        query.push(" and o.status = ").push_bind(status.as_str().to_owned());
    }
    if let Some(currency) = filter.currency {
        query.push(format!(" and {total}{walked}.currency = ")).push_bind(currency.code().to_owned());
    }
    let bounds = [
        ("", "created_at", ">=", filter.created_from_micros),
        ("", "created_at", "<=", filter.created_to_micros),
        (total, "total_minor", ">=", filter.min_total_minor),
        (total, "total_minor", "<=", filter.max_total_minor),
    ];
    for (filter_only, column, comparison, bound) in bounds {
        if let Some(bound) = bound {
            query.push(format!(" and {filter_only}{walked}.{column} {comparison} ")).push_bind(bound);
        }
    }
}
