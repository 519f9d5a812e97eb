//! What never reached the topic is fetched from the log.

use chassis::kafka::producer::{Outgoing, Producer};
use chassis::testkit::eventually;
use serde_json::Value;

use crate::world::client::{Answer, TWO_AND_ONE};
use crate::world::{SOON, World};

/// Publishes an event of the log as the relay does.
async fn publish(world: &World, event: &Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (key, payload) = (text(&event["order_id"]), text(&event["message"]));
    let headers = event["headers"].as_array().unwrap().iter();
    // A test's few names may stay for its lifetime.
    let headers = headers.map(|header| (&*text(&header[0]).leak(), text(&header[1]).into())).collect();
    let record = Outgoing { key: key.as_bytes(), payload: payload.as_bytes(), headers, partition: None };
    let producer = Producer::connect(&world.topic.brokers, "test").unwrap();
    producer.send_batch(&world.topic.spec.name, &[record], SOON).await.unwrap();
}

#[tokio::test]
async fn a_hole_on_the_topic_is_filled_from_the_log() {
    let mut world = World::prepare().await;
    world.topic.make().await;
    // Nobody publishes but the test, which forgets the first event.
    world.command.set("RELAY", "off");
    world.command.start().await;
    let alice = world.customer("alice");
    let placed = alice.places(TWO_AND_ONE).await;
    let paid = alice.pays(placed).await;
    let log = Answer::to(world.http.get(format!("{}/internal/events", world.command.url()))).await.unwrap().is(200);
    publish(&world, &log.json()["events"][1]).await;

    let log_url = world.command.url();
    world.query.set("QUERY_LOG_URL", &log_url);
    world.query.start().await;
    world.sees(paid).at(2).await;
    assert_eq!(world.query.metric("orders_projection_healed_total").await, Some(1.0));
    let url = format!("{}/orders/{}", world.query.url(), paid.id);
    let seen = Answer::to(world.http.get(url)).await.unwrap().is(200);
    assert_eq!((&seen.json()["status"], seen.json().get("stale")), (&Value::from("PAID"), None));

    // It comes after all, with the other one once more.
    world.command.drain().await;
    world.command.set("RELAY", "on");
    world.command.start().await;
    eventually(SOON, "both are known already", || async {
        let duplicates = world.query.metric("orders_projection_duplicates_total").await;
        if duplicates == Some(2.0) { Ok(()) } else { Err(format!("{duplicates:?} duplicates")) }
    })
    .await;
    world.end().await;
}
