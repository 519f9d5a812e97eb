//! A generation that is not what its source tells, or is damaged, is found out before anybody is served from it (rules R11).

use query::generation::State;
use query::rebuild::{Error, Rebuild};
use query::store;
use query::verify;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use tokio_util::sync::CancellationToken;

use crate::rebuild::{interrupted, lives, rebuild, served, told};
use crate::topic::Topic;
use crate::world::{Kind, Place, World, on_both_stores};

on_both_stores!(
    what_differs_from_its_source_is_not_promoted,
    a_lost_event_is_found_out,
    damaged_content_is_told_as_damage,
);

/// Builds generation 2 up to its verification, changes its rows behind its back, and goes on.
async fn tampered(kind: Kind, statement: fn(&str) -> String) -> (World, Rebuild, Error) {
    let topic = Topic::made().await;
    let world = served(kind, &topic, &lives(1, 12)).await;
    let (rebuild, mut told) = rebuild(&world, &topic).await;
    interrupted(&rebuild, &mut told).await;
    change_next(&world, statement).await;
    let ended = rebuild.run(&CancellationToken::new()).await.unwrap_err();
    (world, rebuild, ended)
}

/// Changes rows of generation 2 behind everybody's back.
pub(crate) async fn change_next(world: &World, statement: fn(&str) -> String) {
    match &world.place {
        Place::Folder(folder, _raw) => {
            let options = SqliteConnectOptions::new().filename(folder.path().join("orders.db.g2"));
            let mut raw = SqliteConnection::connect_with(&options).await.unwrap();
            let changed = sqlx::query(AssertSqlSafe(statement(""))).execute(&mut raw).await.unwrap();
            assert_ne!(changed.rows_affected(), 0);
            raw.close().await.unwrap();
        }
        Place::Database(database) => {
            let changed = sqlx::query(AssertSqlSafe(statement("public_g2."))).execute(&database.pool()).await.unwrap();
            assert_ne!(changed.rows_affected(), 0);
        }
    }
}

async fn what_differs_from_its_source_is_not_promoted(kind: Kind) {
    let statement =
        |place: &str| format!("update {place}customers set orders = orders + 1 where customer_id = 'customer-1'");
    let (world, rebuild, error) = tampered(kind, statement).await;
    assert!(matches!(error, Error::Verify(_)), "{error:?}");
    assert!(format!("{error:?}").contains("customers"), "{error:?}");
    assert_eq!(rebuild.generations.live().await.unwrap().number, 1);
    let condemned = &told(&rebuild.generations).await[&2];
    assert!(condemned.state == State::Building && !condemned.is_begun(), "{condemned:?}");
    assert_eq!(world.get("/orders").await.status, 200);
    // The next one begins anew, under a number that nobody has open, and nothing is wrong with it.
    assert_eq!(rebuild.run(&CancellationToken::new()).await.unwrap().number, 3);
    assert_eq!(rebuild.generations.numbers().await.unwrap(), [1, 3]);
}

async fn a_lost_event_is_found_out(kind: Kind) {
    // The last event of a delivered order: no hole shows it.
    let statement = |place: &str| format!("delete from {place}order_history where event_type = 'OrderDelivered'");
    let (_world, rebuild, error) = tampered(kind, statement).await;
    assert!(format!("{error:?}").contains("events"), "{error:?}");
    assert_eq!(rebuild.generations.live().await.unwrap().number, 1);
}

async fn damaged_content_is_told_as_damage(kind: Kind) {
    let damages: [fn(&str) -> String; 4] = [
        |place| format!("update {place}order_history set message = replace(message, 'customer-1', 'customer-9')"),
        |place| format!("update {place}order_history set message = 'nothing' where version = 2"),
        |place| format!("update {place}orders set customer_id = 'somebody else'"),
        |place| format!("update {place}orders set document = 'nothing'"),
    ];
    for damage in damages {
        let (_world, rebuild, error) = tampered(kind, damage).await;
        let Error::Verify(verify::Error::Store(found)) = &error else { panic!("{error:?}") };
        assert!(matches!(found, store::Error::Corrupt { .. }), "{error:?}");
        assert!(found.is_damage() && found.reason() == "row-corrupt", "{error:?}");
        let condemned = &told(&rebuild.generations).await[&2];
        assert!(condemned.state == State::Building && !condemned.is_begun(), "{condemned:?}");
    }
}
