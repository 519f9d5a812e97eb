//! The schema: its migrations, and databases that earlier forms of two of them made.

use chassis::config::Secret;
use chassis::postgres;
use sqlx::PgConnection;
use sqlx::migrate::Migrator;

/// The schema's history, as `sqlx migrate run --source migrations/command` applies it.
pub static MIGRATOR: Migrator = sqlx::migrate!("../migrations/command");

/// Migrations that were changed after they had been applied somewhere, and the SHA-384 of their earlier form.
///
/// They named the schema `public` and created the role in any case, so they failed elsewhere. In `public` both forms make the same tables,
/// functions and rights, so a database that the earlier form made is as good as one of the present form.
const EARLIER_FORMS: [(i64, &str); 2] = [
    (2, "9ff397f3e6cb6902d48751be7e827230e1b9e6ba4bfa123755b3a8258aff028a0439725ae8d33fc5a408a3855c9c4d27"),
    (3, "f9d4d3833e4a52dbf29847592dd02f1fe80639b4b510690330c3971f7ba7d938d673724a1b0557514b5b8bcf8193b7cc"),
];

/// Brings the database up to date.
///
/// # Errors
///
/// The database cannot be reached, belongs to another program, or a migration fails.
pub async fn migrate(url: &Secret) -> Result<(), postgres::Error> {
    let owner = postgres::connect_options(url, "order-command-migrate", None)?;
    let mut connection = postgres::connect(&owner).await.map_err(postgres::Error::Unreachable)?;
    postgres::assert_ours(&mut connection, &MIGRATOR).await?;
    recognise_earlier_forms(&mut connection).await.map_err(postgres::Error::Unreachable)?;
    postgres::disconnect(connection).await;
    postgres::migrate(&owner, &MIGRATOR).await
}

async fn recognise_earlier_forms(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    if !has_history(connection).await? {
        return Ok(());
    }
    for (version, earlier) in EARLIER_FORMS {
        let Some(migration) = MIGRATOR.iter().find(|migration| migration.version == version) else { continue };
        sqlx::query("update _sqlx_migrations set checksum = $1 where version = $2 and checksum = decode($3, 'hex')")
            .bind(&*migration.checksum)
            .bind(version)
            .bind(earlier)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Whether every migration of this release is applied. A newer schema is fine: migrations only ever add what an older release does not
/// look at.
///
/// # Errors
///
/// The database's.
pub async fn is_up_to_date(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    if !has_history(connection).await? {
        return Ok(false);
    }
    let ours: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    let missing = "select exists (select unnest($1::int8[]) except select version from _sqlx_migrations where success)";
    let missing: bool = sqlx::query_scalar(missing).bind(ours).fetch_one(connection).await?;
    Ok(!missing)
}

async fn has_history(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(connection).await
}
