use std::collections::BTreeMap;
use std::fs::File;

use chassis::testkit::eventually;
use query::generation::Revisions;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};

use crate::world::client::TWO_AND_ONE;
use crate::world::generations::{Kind, Watch, digest, operate, serves};
use crate::world::load::Load;
use crate::world::process::Service;
use crate::world::reads::Reads;
use crate::world::{SOON, World};

/// How often the topic is repeated, so that reading it takes a while.
const REPEATS: usize = 80;

/// A world with some thousand records on its topic, all of them applied.
async fn with_a_long_topic(world: &World) {
    let load = Load::begin(world, 3);
    load.goes_on(100).await;
    let acknowledged = load.end().await;
    let alice = world.customer("alice");
    alice.cancels(alice.places(TWO_AND_ONE).await).await;
    assert!(acknowledged.orders.len() > 10);
    world.reads_equal_the_log().await;
    world.topic.repeat(REPEATS).await;
}

async fn a_rebuild_that_is_killed_goes_on(kind: Kind) {
    let (world, _database) = World::start_with(kind).await;
    with_a_long_topic(&world).await;
    let (before, watch, operators) =
        (digest(&world.query).await, Watch::begin(world.reads()), world.operators(&world.query));

    let mut rebuild = world.query.beside("killed", &["rebuild"]);
    rebuild.launch();
    assert_eq!(operators.see_building().await, 2);
    rebuild.kill();
    assert_eq!(operators.generations().await, (vec![1], 1));
    assert_eq!(digest(&world.query).await, before);

    let printed = operate(&world.query, &["rebuild"]).await;
    assert!(printed.starts_with("generation 2 is served: "), "{printed}");
    let (read, all) = (records_read(&printed), world.topic.positions().await.len());
    assert!(read < all, "it read {read} of {all} records, as if nothing had been there");
    serves(&world.query, 2, 1).await;
    assert_eq!(operators.generations().await, (vec![1, 2], 2));
    assert_eq!(digest(&world.query).await, before);
    watch.end().await;
    world.end().await;
}

/// As `order-query rebuild` prints it.
fn records_read(printed: &str) -> usize {
    let words: Vec<&str> = printed.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "records").unwrap();
    words[at - 1].parse().unwrap()
}

#[tokio::test]
async fn a_rebuild_that_is_killed_goes_on_in_a_file() {
    a_rebuild_that_is_killed_goes_on(Kind::Sqlite).await;
}

#[tokio::test]
async fn a_rebuild_that_is_killed_goes_on_in_a_shared_database() {
    a_rebuild_that_is_killed_goes_on(Kind::Postgres).await;
}

#[tokio::test]
async fn a_service_that_is_killed_while_it_rebuilds_goes_on_by_itself() {
    let (mut world, _database) = World::start_with(Kind::Sqlite).await;
    with_a_long_topic(&world).await;
    let (before, operators) = (digest(&world.query).await, world.operators(&world.query));
    let begun = operators.post("/rebuild", &json!({})).await.is(202);
    assert_eq!(begun.header("location"), "/rebuild");
    assert_eq!(operators.see_building().await, 2);
    let again = operators.post("/rebuild", &json!({})).await.is(409);
    assert_eq!(again.problem(), "rebuild-running");
    world.query.kill();

    world.query.start().await;
    operators.see_live(2).await;
    serves(&world.query, 2, 1).await;
    assert!(world.query.log().contains("is gone on with"));
    assert_eq!(operators.generations().await, (vec![1, 2], 2));
    assert_eq!(digest(&world.query).await, before);
    world.end().await;
}

#[tokio::test]
async fn a_rebuild_that_an_operator_stops_waits_for_the_next_one() {
    let (world, _database) = World::start_with(Kind::Sqlite).await;
    with_a_long_topic(&world).await;
    let operators = world.operators(&world.query);
    let unknown = operators.post("/rebuild", &json!({ "source": "hearsay" })).await.is(400);
    assert_eq!(unknown.problem(), "invalid-source");
    operators.post("/rebuild", &json!({ "source": "topic" })).await.is(202);
    assert_eq!(operators.see_building().await, 2);
    operators.delete("/rebuild").await.is(202);
    eventually(SOON, "it stops", || async {
        let told = operators.get("/rebuild").await;
        if told["running"].is_null() && told["failure"].is_string() { Ok(()) } else { Err(told.to_string()) }
    })
    .await;
    assert_eq!(operators.generations().await, (vec![1], 1));
    operators.post("/rebuild", &json!({ "source": "topic" })).await.is(202);
    serves(&world.query, 2, 1).await;
    world.end().await;
}

/// Changes, behind the reader's back, which revision of a projection fills its tables.
async fn was_filled_by(reader: &Service, projection: &str, revision: Option<u32>) {
    let mut revisions: BTreeMap<String, u32> = serde_json::from_str(&Revisions::ours().to_json()).unwrap();
    match revision {
        Some(revision) => revisions.insert(projection.to_owned(), revision),
        None => revisions.remove(projection),
    };
    let statement = format!("update generation set revisions = '{}'", serde_json::to_string(&revisions).unwrap());
    let url = reader.variable("QUERY_DATABASE_URL");
    if url.starts_with("sqlite:") {
        let mut rows = SqliteConnection::connect(url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut rows).await.unwrap();
        rows.close().await.unwrap();
    } else {
        let mut rows = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut rows).await.unwrap();
        rows.close().await.unwrap();
    }
}

/// Keeps anybody from building generation 2.
enum Obstacle {
    File(File),
    Schema(PgConnection),
}

impl Obstacle {
    async fn before(kind: Kind, reader: &Service) -> Self {
        match kind {
            Kind::Sqlite => {
                let file = reader.variable("QUERY_DATABASE_URL").trim_start_matches("sqlite://").to_owned();
                let lock = File::create(format!("{file}.g2.lock")).unwrap();
                lock.try_lock().unwrap();
                Self::File(lock)
            }
            Kind::Postgres => {
                let mut rows = PgConnection::connect(reader.variable("QUERY_DATABASE_URL")).await.unwrap();
                sqlx::raw_sql("begin; create schema public_g2").execute(&mut rows).await.unwrap();
                Self::Schema(rows)
            }
        }
    }

    async fn goes(self) {
        match self {
            Self::File(lock) => drop(lock),
            Self::Schema(rows) => rows.close().await.unwrap(),
        }
    }
}

async fn a_newer_projection_is_built_by_itself(kind: Kind) {
    let (mut world, database) = World::start_with(kind).await;
    let alice = world.customer("alice");
    let cancelled = alice.cancels(alice.places(TWO_AND_ONE).await).await;
    world.sees(cancelled).at(2).await;
    let told = world.reads().get("/cancellations").await.unwrap().is(200).body;
    world.query.drain().await;
    was_filled_by(&world.query, "cancellations", None).await;

    let obstacle = Obstacle::before(kind, &world.query).await;
    world.query.start().await;
    let building = world.reads().get("/cancellations").await.unwrap().is(503);
    assert_eq!(building.problem(), "projection-building");
    assert_ne!(building.header("retry-after"), "");
    for path in ["/orders", "/customers", "/sales/daily", "/products"] {
        assert!(!world.reads().list(path).await.is_empty(), "{path}");
    }
    // A node that does not project knows it as well.
    let mut standby = None;
    if let Some(database) = &database {
        let mut other = world.another_reader();
        other.set("QUERY_DATABASE_URL", database.url().expose());
        other.start().await;
        Reads::of(&other, &world).get("/cancellations").await.unwrap().is(503);
        standby = Some(other);
    }
    // Orders go on, and so do the projections that are as they were.
    let late = alice.places(TWO_AND_ONE).await;
    world.sees(late).at(1).await;
    obstacle.goes().await;
    serves(&world.query, 2, 1).await;
    assert_eq!(world.reads().get("/cancellations").await.unwrap().is(200).body, told);
    if let Some(mut other) = standby {
        serves(&other, 2, 1).await;
        assert_eq!(Reads::of(&other, &world).get("/cancellations").await.unwrap().is(200).body, told);
        other.drain().await;
    }
    world.figures_are_right().await;
    world.end().await;
}

#[tokio::test]
async fn a_newer_projection_is_built_by_itself_in_a_file() {
    a_newer_projection_is_built_by_itself(Kind::Sqlite).await;
}

#[tokio::test]
async fn a_newer_projection_is_built_by_itself_in_a_shared_database() {
    a_newer_projection_is_built_by_itself(Kind::Postgres).await;
}

#[tokio::test]
async fn what_a_newer_program_filled_is_refused_at_start() {
    for kind in [Kind::Sqlite, Kind::Postgres] {
        let (mut world, _database) = World::start_with(kind).await;
        let order = world.customer("alice").places(TWO_AND_ONE).await;
        world.sees(order).at(1).await;
        world.query.drain().await;
        was_filled_by(&world.query, "cancellations", Some(1_000)).await;
        world.query.launch();
        assert_eq!(world.query.exit(SOON).await.code(), Some(1));
        let log = world.query.log();
        let reasons: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
        assert_eq!(reasons.len(), 1, "{log}");
        assert!(reasons[0].contains("filled by a newer program") && reasons[0].contains("cancellations 1000"), "{log}");
        was_filled_by(&world.query, "cancellations", Some(1)).await;
        world.query.start().await;
        world.end().await;
    }
}
