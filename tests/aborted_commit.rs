use futures_util::future::{join, join_all};

use crate::world::World;
use crate::world::client::{Answer, TWO_AND_ONE};

/// Lets every transaction do this at its commit that has an event of the customer `marked` in it.
async fn at_commit_of_marked(world: &World, does: &str) {
    let trigger = format!(
        "create function at_commit() returns trigger language plpgsql security definer as $$ begin
             if position('\"customer_id\":\"marked\"' in new.payload) > 0 then {does}; end if;
             return null;
         end $$;
         create constraint trigger at_commit after insert on events
             deferrable initially deferred for each row execute function at_commit()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger)).execute(&world.log()).await.unwrap();
}

async fn is_in_the_log(world: &World, customer: &str) -> bool {
    let found = sqlx::query_scalar("select exists (select from events where payload::json->>'customer_id' = $1)");
    found.bind(customer).fetch_one(&world.log()).await.unwrap()
}

#[tokio::test]
async fn a_commit_that_fails_is_never_acknowledged_and_sinks_no_neighbour() {
    let world = World::start().await;
    at_commit_of_marked(&world, "raise exception 'not this one'").await;

    let (marked, alice) = (world.customer("marked"), world.customer("alice"));
    for _ in 0..3 {
        let neighbours = join_all((0..40).map(|_| Answer::to(alice.asks_for(TWO_AND_ONE))));
        let (refused, neighbours) = join(Answer::to(marked.asks_for(TWO_AND_ONE)), neighbours).await;
        let refused = refused.unwrap().is(500);
        assert_eq!(refused.problem(), "internal");
        assert_eq!(refused.json()["outcome"], "not-executed");
        for neighbour in neighbours {
            neighbour.unwrap().is(201);
        }
    }
    assert!(!is_in_the_log(&world, "marked").await);
    assert_eq!(world.logged().await.len(), 120);
    world.end().await;
}

#[tokio::test]
async fn a_commit_whose_connection_dies_is_never_acknowledged() {
    let world = World::start().await;
    at_commit_of_marked(&world, "perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(5)").await;

    let refused = Answer::to(world.customer("marked").asks_for(TWO_AND_ONE)).await.unwrap().is(503);
    assert_eq!(refused.json()["outcome"], "not-executed");
    assert!(!is_in_the_log(&world, "marked").await);
    // The lane has a connection again.
    world.customer("alice").places(TWO_AND_ONE).await;
    world.end().await;
}
