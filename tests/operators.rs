//! An operator looks at what was not applied, and deals with it.

use chassis::testkit::eventually;
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};

use crate::world::client::{Answer, TWO_AND_ONE};
use crate::world::{SOON, World, settings};

#[tokio::test]
async fn a_dead_letter_is_discarded_and_stays_so_when_the_topic_is_read_again() {
    let mut world = World::prepare().await;
    let admin = format!("127.0.0.1:{}", settings::free_port());
    world.query.set("QUERY_ADMIN_LISTEN", &admin);
    let directory = tempfile::tempdir().unwrap();
    let file = format!("sqlite://{}", directory.path().join("orders.db").display());
    world.query.set("QUERY_DATABASE_URL", &file);
    world.command.start().await;
    world.query.start().await;
    let order = world.customer("alice").places(TWO_AND_ONE).await;
    world.sees(order).at(1).await;
    world.topic.publish("not ours").await;
    let listed = eventually(SOON, "it is set aside", || async {
        let listed = world.reads().dead_letters().await;
        listed.first().cloned().ok_or_else(|| "nothing is listed".to_owned())
    })
    .await;

    let text = |name: &str| listed[name].as_str().unwrap().to_owned();
    let at = (text("topic"), &listed["partition"], &listed["offset"], text("digest"));
    let letter = format!("http://{admin}/dead-letters/{}/{}/{}/{}", at.0, at.1, at.2, at.3);
    let whole = Answer::to(world.http.get(&letter)).await.unwrap().is(200).json();
    assert_eq!(whole["payload"], "not ours");
    let discard = world.http.post(format!("{letter}/discard")).header("x-actor", "bob");
    let unexplained = discard.try_clone().unwrap();
    assert_eq!(Answer::to(unexplained).await.unwrap().is(400).problem(), "invalid-reason");
    let done = Answer::to(discard.json(&json!({ "reason": "not ours" }))).await.unwrap().is(200).json();
    assert_eq!((&done["actor"], &done["outcome"]["discarded"]), (&Value::from("bob"), &Value::from(1)), "{done}");
    assert!(world.reads().dead_letters().await.is_empty());

    // As if the topic had been made anew: everything is read again, over the rows there are.
    world.query.drain().await;
    let mut rows = SqliteConnection::connect(&file).await.unwrap();
    let forget = "delete from checkpoints; delete from changes; delete from changes_kept";
    sqlx::raw_sql(forget).execute(&mut rows).await.unwrap();
    rows.close().await.unwrap();
    world.query.start().await;
    eventually(SOON, "everything was read again", || async {
        let duplicates = world.query.metric("orders_projection_duplicates_total").await;
        if duplicates == Some(2.0) { Ok(()) } else { Err(format!("{duplicates:?} duplicates")) }
    })
    .await;
    assert!(world.reads().dead_letters().await.is_empty());
    world.end().await;
}
