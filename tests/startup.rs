use std::net::TcpListener;

use sqlx::Connection as _;

use crate::world::broker::Broker;
use crate::world::client::TWO_AND_ONE;
use crate::world::process::{self, Spec};
use crate::world::{World, settings};

/// Runs a program that must not start. Returns its exit code and the one thing that it says.
fn refuses(mut spec: Spec, changes: &[(&str, Option<&str>)]) -> (Option<i32>, String) {
    for (variable, value) in changes {
        spec.envs.retain(|(name, _)| name != variable);
        spec.envs.extend(value.map(|value| ((*variable).to_owned(), value.to_owned())));
    }
    // The port would be in use, had it been bound: the reason must be another one.
    let _taken = TcpListener::bind(("127.0.0.1", spec.port)).unwrap();
    let (code, _output, told) = process::run(&spec);
    (code, told)
}

#[tokio::test]
async fn a_wrong_setting_is_one_line_and_exit_code_64() {
    let world = World::prepare().await;
    let command = || world.command_run("order-command", &["serve"]);
    let query = || world.query_run("order-query", &["serve"]);
    for (spec, variable, value, named) in [
        (command(), "COMMAND_DATABASE_URL", None, "--database-url"),
        (command(), "COMMAND_LANES", Some("0"), "--lanes"),
        (command(), "ORDERS_TOPIC_PARTITIONS", Some("many"), "--topic-partitions"),
        (command(), "DEFAULT_CURRENCY", Some("XXXX"), "--default-currency"),
        (query(), "QUERY_DATABASE_URL", None, "--database-url"),
        (query(), "QUERY_LISTEN", Some("nowhere"), "--listen"),
        (query(), "QUERY_ADMIN_LISTEN", Some("nowhere"), "--admin-listen"),
    ] {
        let (code, told) = refuses(spec, &[(variable, value)]);
        assert_eq!(code, Some(64), "{variable}: {told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{variable}: {told}");
        assert!(told.contains(named), "{variable}: {told}");
    }
    world.end_unused();
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused_before_anything_is_opened() {
    let world = World::prepare().await;
    let command = || world.command_run("order-command", &["serve"]);
    let query = || world.query_run("order-query", &["serve"]);
    for (spec, variable, value) in [
        (command(), "UNKNOWN_SKU_PRICE", Some("10.001")),
        (command(), "SEED_PRODUCTS", Some("prod-1")),
        (query(), "QUERY_ADMIN_LISTEN", None),
    ] {
        // No port is so far above this one as the operators' would have to be.
        let high = [("QUERY_LISTEN", Some("127.0.0.1:65000"))];
        let (code, told) = refuses(spec, &[[(variable, value)].as_slice(), high.as_slice()].concat());
        assert_eq!(code, Some(64), "{told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
        assert!(told.contains(variable), "{told}");
    }
    world.end_unused();
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_told_and_no_password_with_it() {
    let world = World::prepare().await;
    let url = format!("postgres://somebody:secret@127.0.0.1:{}/orders", settings::free_port());
    let spec = world.command_run("order-command", &["serve"]);
    let (code, told) = refuses(spec, &[("COMMAND_DATABASE_URL", Some(&url))]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("database"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    world.end_unused();
}

#[tokio::test]
async fn a_topic_that_would_lose_events_is_refused() {
    let world = World::prepare().await;
    world.topic.make().await;
    let spec = world.command_run("order-command", &["serve"]);
    let (code, told) = refuses(spec, &[("ORDERS_TOPIC_PARTITIONS", Some("12"))]);
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("partitions = 3, but 12 is required"), "{told}");
    world.end_unused();
}

#[tokio::test]
async fn nobody_changes_the_past_not_even_the_owner() {
    let world = World::start().await;
    let order = world.customer("alice").places(TWO_AND_ONE).await;
    world.sees(order).at(1).await;
    let mut connection = world.log().acquire().await.unwrap();
    for (role, refusal) in [("order_command", "42501"), ("none", "23001")] {
        for change in ["update events set payload = '{}'", "delete from events", "truncate events"] {
            let mut transaction = connection.begin().await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(format!("set role {role}"))).execute(&mut *transaction).await.unwrap();
            let refused = sqlx::raw_sql(change).execute(&mut *transaction).await.unwrap_err();
            let code = refused.as_database_error().and_then(|error| error.code()).unwrap().into_owned();
            assert_eq!(code, refusal, "{role}: {change}: {refused}");
            transaction.rollback().await.unwrap();
        }
    }
    drop(connection);
    world.end().await;
}

#[tokio::test]
async fn commands_are_taken_without_a_broker_and_published_when_it_comes() {
    let mut broker = Broker::new();
    let mut world = World::prepare_on(broker.brokers()).await;
    world.command.start().await;
    let order = world.customer("alice").places(TWO_AND_ONE).await;
    world.query.launch();

    broker.launch();
    world.query.is_ready().await;
    world.sees(order).at(1).await;
    world.end().await;
}
