//! What readers see: the query service's API in the words of its users.

use std::collections::{BTreeMap, HashMap};

use chassis::testkit::eventually;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::client::{Answer, Order};
use super::fold::{CustomerFigures, DayFigures, Figures, ProductFigures, cents};
use super::process::Service;
use super::{SOON, World};

/// The largest page.
const PAGE: u32 = 200;

/// The query service, asked by somebody who can wait.
#[derive(Debug, Clone)]
pub(crate) struct Reads {
    url: String,
    http: reqwest::Client,
}

/// An order that a reader looks for.
#[derive(Debug)]
pub(crate) struct Sees {
    reads: Reads,
    order: Uuid,
}

impl World {
    /// Its query service.
    pub(crate) fn reads(&self) -> Reads {
        Reads::of(&self.query, self)
    }

    /// Somebody looks for the order.
    pub(crate) fn sees(&self, order: Order) -> Sees {
        Sees { reads: self.reads(), order: order.id }
    }

    /// Every order of the log with its version.
    pub(crate) async fn logged(&self) -> HashMap<Uuid, u32> {
        let rows: Vec<(Uuid, i32)> = sqlx::query_as("select order_id, max(version) from events group by order_id")
            .fetch_all(&self.log())
            .await
            .unwrap();
        rows.into_iter().map(|(order, version)| (order, u32::try_from(version).unwrap())).collect()
    }
}

impl Sees {
    /// The order as readers get it, once it has this version.
    pub(crate) async fn at(&self, version: u32) -> Answer {
        let path = format!("/orders/{}?min_version={version}", self.order);
        eventually(SOON, &format!("order {} is seen at version {version}", self.order), || async {
            match self.reads.get(&path).await {
                Ok(answer) if answer.status == 200 => Ok(answer),
                Ok(answer) => Err(answer.body),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }
}

impl Reads {
    /// Of this query service.
    pub(crate) fn of(service: &Service, world: &World) -> Self {
        Self { url: service.url(), http: world.http.clone() }
    }

    /// A `GET`, whatever the answer.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        Answer::to(self.http.get(format!("{}{path}", self.url))).await
    }

    /// The one array that a list with so few elements has.
    pub(crate) async fn list(&self, path: &str) -> Vec<Value> {
        serde_json::from_str(&self.get(path).await.unwrap().is(200).body).unwrap()
    }

    /// Every element of a list, page by page.
    pub(crate) async fn every<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Vec<T> {
        let mut all = Vec::new();
        let mut next = Some(format!("{path}?limit={PAGE}"));
        while let Some(page) = next {
            let answer = self.get(&page).await.unwrap().is(200);
            all.extend(serde_json::from_str::<Vec<T>>(&answer.body).unwrap());
            let link = answer.header("link").strip_suffix(">; rel=\"next\"");
            next = link.map(|link| link.trim_start_matches('<').to_owned());
        }
        all
    }

    /// Every order with its version.
    pub(crate) async fn orders(&self) -> HashMap<Uuid, u32> {
        #[derive(Deserialize)]
        struct Listed {
            order_id: Uuid,
            version: u32,
        }
        let orders: Vec<Listed> = self.every("/orders").await;
        let count = orders.len();
        let orders: HashMap<Uuid, u32> = orders.into_iter().map(|order| (order.order_id, order.version)).collect();
        assert_eq!(orders.len(), count, "an order is listed twice");
        orders
    }

    pub(crate) async fn dead_letters(&self) -> Vec<Value> {
        self.list("/dead-letters").await
    }

    pub(crate) async fn parked(&self) -> Vec<Value> {
        self.list("/parked").await
    }

    /// All sums that readers are told.
    pub(crate) async fn figures(&self) -> Figures {
        Figures { customers: self.customers().await, days: self.days().await, products: self.products().await }
    }

    async fn customers(&self) -> BTreeMap<String, CustomerFigures> {
        #[derive(Deserialize)]
        struct Customer {
            customer_id: String,
            orders: i64,
            cancellations: i64,
            spend: Vec<Spend>,
        }
        #[derive(Deserialize)]
        struct Spend {
            amount: Box<RawValue>,
        }
        let customers: Vec<Customer> = self.every("/customers").await;
        let figures = customers.into_iter().map(|customer| {
            let Customer { customer_id, orders, cancellations, spend } = customer;
            let spend = spend.iter().map(|spend| cents(&spend.amount)).sum();
            (customer_id, CustomerFigures { orders, cancellations, spend })
        });
        figures.collect()
    }

    async fn days(&self) -> BTreeMap<String, DayFigures> {
        #[derive(Deserialize)]
        struct Day {
            day: String,
            orders: i64,
            cancellations: i64,
            revenue: Box<RawValue>,
        }
        let days: Vec<Day> = self.every("/sales/daily").await;
        let figures = days.into_iter().map(|Day { day, orders, cancellations, revenue }| {
            (day, DayFigures { orders, cancellations, revenue: cents(&revenue) })
        });
        figures.collect()
    }

    async fn products(&self) -> BTreeMap<String, ProductFigures> {
        #[derive(Deserialize)]
        struct Product {
            sku: String,
            units: i64,
            revenue: Box<RawValue>,
        }
        let products: Vec<Product> = self.every("/products").await;
        let figures = products
            .into_iter()
            // Demand that has gone leaves a line of zeros; the fold leaves none.
            .filter(|product| product.units != 0)
            .map(|Product { sku, units, revenue }| (sku, ProductFigures { units, revenue: cents(&revenue) }));
        figures.collect()
    }
}
