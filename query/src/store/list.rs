//! The one question whose text depends on what is asked: a list of orders. Written once for both databases, which
//! understand the same SQL here.
//!
//! - **Invariant:** every list walks an index from a key, and never counts rows off.

use domain::OrderId;

use super::Error;
use super::answer::{ListFilter, Listed, Page};

/// What an order in a list takes, about, in bytes: room for so many is made beforehand.
const DOCUMENT_BYTES: usize = 512;

/// What the databases do not have in common.
pub(super) struct Dialect {
    /// What stands before a statement that is to be explained, and not run.
    pub(super) explain: &'static str,
    /// What stands before a column by which rows are filtered, and no index is to be chosen. SQLite gathers no
    /// statistics by which it could choose well.
    pub(super) filter_only: &'static str,
}

/// A statement whose values are apart, so that the same question with other values has the same text, and is found
/// prepared.
#[derive(Debug)]
pub(super) struct Question {
    /// With `$1`, `$2` … where the values belong, in this order and each once.
    pub(super) text: String,
    pub(super) values: Vec<Value>,
}

/// A value of a question.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Id(OrderId),
    Integer(i64),
}

impl Question {
    fn new(text: String) -> Self {
        Self { text, values: Vec::new() }
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    fn bind(&mut self, value: Value) -> &mut Self {
        self.values.push(value);
        let place = self.values.len().to_string();
        self.push("$").push(&place)
    }
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

/// Whether an index holds just the rows that are shown, in their order, so that a page costs its rows and nothing
/// else. Other lists pass by rows, who knows how many, that they do not show.
pub(super) fn is_direct(filter: &ListFilter, page: &Page) -> bool {
    let ListFilter { status, customer_id, sku, created_from_micros, created_to_micros, .. } = filter;
    let leading = [status.is_some(), customer_id.is_some(), sku.is_some()].into_iter().filter(|leads| *leads).count();
    if page.sort.is_by_creation() {
        let by_total = filter.min_total_minor.is_some() || filter.max_total_minor.is_some();
        leading <= 1 && filter.currency.is_none() && !by_total
    } else {
        let by_time = created_from_micros.is_some() || created_to_micros.is_some();
        status.is_none() && customer_id.is_none() && !by_time
    }
}

/// The parameters of a list that only filter: no index leads to what they ask for, beside the one that is walked.
pub(crate) fn unaided(filter: &ListFilter, page: &Page) -> Vec<&'static str> {
    let by_creation = page.sort.is_by_creation();
    let mut leads = by_creation;
    // The first of these leads a list by time; a list by total is led by the currency and a product.
    let mut told = Vec::new();
    for (name, given) in [
        ("customer_id", filter.customer_id.is_some()),
        ("sku", filter.sku.is_some() && by_creation),
        ("status", filter.status.is_some()),
    ] {
        if given && !std::mem::take(&mut leads) {
            told.push(name);
        }
    }
    for (name, given, led_by) in [
        ("currency", filter.currency.is_some(), !by_creation),
        ("min_total", filter.min_total_minor.is_some(), !by_creation),
        ("max_total", filter.max_total_minor.is_some(), !by_creation),
        ("created_from", filter.created_from_micros.is_some(), by_creation),
        ("created_to", filter.created_to_micros.is_some(), by_creation),
    ] {
        if given && !led_by {
            told.push(name);
        }
    }
    told
}

/// A page, as `key, order_id, document`. `before` is nothing, or what explains it.
pub(super) fn page(before: &str, dialect: &Dialect, filter: &ListFilter, page: &Page, limit: u32) -> Question {
    let source = Source::of(filter);
    let by_creation = page.sort.is_by_creation();
    let key = if by_creation { "created_at" } else { "total_minor" };
    let Source { from, walked, .. } = source;
    let mut question =
        Question::new(format!("{before}select {walked}.{key}, o.order_id, o.document from {from} where "));
    // Where time sorts, amounts only filter.
    let total = if by_creation { dialect.filter_only } else { "" };
    conditions(&mut question, &narrowed(filter, page), &source, total);
    let (after, direction) = if page.sort.is_descending() { ("<", "desc") } else { (">", "asc") };
    if let Some((value, order_id)) = page.after {
        question.push(&format!(" and ({walked}.{key}, {walked}.order_id) {after} (")).bind(Value::Integer(value));
        question.push(", ").bind(Value::Id(order_id)).push(")");
    }
    question.push(&format!(" order by {walked}.{key} {direction}, {walked}.order_id {direction} limit "));
    question.bind(Value::Integer(limit.into()));
    question
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
pub(super) fn count(filter: &ListFilter, most: u32) -> Question {
    let source = Source::of(filter);
    let mut question = Question::new(format!("select count(*) from (select 1 from {} where ", source.from));
    conditions(&mut question, filter, &source, "");
    question.push(" limit ").bind(Value::Integer(most.into())).push(") as counted");
    question
}

fn conditions(question: &mut Question, filter: &ListFilter, source: &Source, total: &str) {
    let walked = source.walked;
    let text = |text: &str| Value::Text(text.to_owned());
    question.push(source.join);
    match &filter.sku {
        Some(sku) if walked == "p" => drop(question.push(" and p.sku = ").bind(text(sku.as_str()))),
        Some(sku) => {
            question.push(
                " and exists (select 1 from order_products as p where p.order_id = o.order_id \
                 and p.created_at = o.created_at and p.sku = ",
            );
            question.bind(text(sku.as_str())).push(")");
        }
        None => {}
    }
    if let Some(customer) = &filter.customer_id {
        question.push(" and o.customer_id = ").bind(text(customer.as_str()));
    }
    if let Some(status) = filter.status {
        question.push(" and o.status = ").bind(text(status.as_str()));
    }
    if let Some(currency) = filter.currency {
        question.push(&format!(" and {total}{walked}.currency = ")).bind(text(currency.code()));
    }
    let bounds = [
        ("", "created_at", ">=", filter.created_from_micros),
        ("", "created_at", "<=", filter.created_to_micros),
        (total, "total_minor", ">=", filter.min_total_minor),
        (total, "total_minor", "<=", filter.max_total_minor),
    ];
    for (filter_only, column, comparison, bound) in bounds {
        if let Some(bound) = bound {
            question.push(&format!(" and {filter_only}{walked}.{column} {comparison} ")).bind(Value::Integer(bound));
        }
    }
}

/// A page that is being read, a row at a time, of which one more than are shown tells that there is a next page.
pub(super) struct Reading {
    documents: Vec<u8>,
    last: Option<(i64, OrderId)>,
    left: u32,
}

impl Reading {
    /// A page of at most `limit` orders.
    pub(super) fn new(limit: u32) -> Self {
        let room = usize::try_from(limit).unwrap_or_default().saturating_mul(DOCUMENT_BYTES);
        let mut documents = Vec::with_capacity(room);
        documents.push(b'[');
        Self { documents, last: None, left: limit }
    }

    /// Whether it has its rows: another one is not shown.
    pub(super) fn is_full(&self) -> bool {
        self.left == 0
    }

    /// Shows a row. Its `key` is asked for where the next page would begin after it.
    pub(super) fn add(
        &mut self,
        document: &[u8],
        key: impl FnOnce() -> Result<(i64, OrderId), Error>,
    ) -> Result<(), Error> {
        if self.documents.len() > 1 {
            self.documents.push(b',');
        }
        self.documents.extend_from_slice(document);
        self.left = self.left.saturating_sub(1);
        if self.is_full() {
            self.last = Some(key()?);
        }
        Ok(())
    }

    /// The page; `more` when there was a row that it does not show.
    pub(super) fn done(mut self, more: bool) -> Listed {
        self.documents.push(b']');
        Listed { documents: self.documents.into(), next: self.last.filter(|_last| more) }
    }
}
