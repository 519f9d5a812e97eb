//! A server that may lose acknowledged commits is refused.

use chassis::postgres::{Unsafe, assert_durable};
use chassis::testkit::TestDatabase;
use sqlx::Executor as _;

use crate::test_database::MIGRATOR;

#[tokio::test]
async fn asynchronous_commit_is_refused_and_local_is_fine_without_a_standby() {
    let database = TestDatabase::create(&MIGRATOR).await;
    let mut session = database.pool().acquire().await.unwrap();
    assert_durable(&mut session).await.unwrap();
    session.execute("set synchronous_commit = local").await.unwrap();
    assert_durable(&mut session).await.unwrap();
    session.execute("set synchronous_commit = off").await.unwrap();
    let refused = assert_durable(&mut session).await.unwrap_err();
    assert!(
        matches!(&refused, Unsafe::Setting { setting, value } if setting == "synchronous_commit" && value == "off"),
        "{refused:?}"
    );
}
