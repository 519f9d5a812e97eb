//! The question why orders were given up, whose text depends on what is asked. Written once for both databases, which
//! understand the same SQL here.

use domain::CustomerId;
use sqlx::{Database, Encode, QueryBuilder, Type};

use super::answer::CancellationFilter;
use crate::projections::cancellations::Reason;

/// A page, as `day, customer_id, reason, orders`, in that order and after that key.
pub(super) fn page<DB>(
    filter: &CancellationFilter,
    after: Option<&(i64, CustomerId, Reason)>,
    limit: u32,
) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new("select day, customer_id, reason, orders from cancellations where day >= ");
    // SQLite finds the beginning by this bound, and not by the key.
    let from_day = after.map_or(filter.from_day, |(day, _customer, _reason)| filter.from_day.max(*day));
    query.push_bind(from_day).push(" and day <= ").push_bind(filter.to_day);
    // A customer's rows are walked along an index of their own, which begins with the customer.
    let (of_customer, key) = match &filter.customer_id {
        Some(_) => (true, "day, reason"),
        None => (false, "day, customer_id, reason"),
    };
    if let Some(customer) = &filter.customer_id {
        query.push(" and customer_id = ").push_bind(customer.as_str().to_owned());
    }
    if let Some((day, customer, reason)) = after {
        query.push(format!(" and ({key}) > (")).push_bind(*day).push(", ");
        if !of_customer {
            query.push_bind(customer.as_str().to_owned()).push(", ");
        }
        query.push_bind(reason.as_str().to_owned()).push(")");
    }
    query.push(format!(" order by {key} limit ")).push_bind(i64::from(limit));
    query
}
