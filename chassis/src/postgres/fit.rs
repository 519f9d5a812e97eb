//! Whether a database and the way to it are fit for a program, in words that name the mistake.

use sqlx::PgConnection;
use sqlx::migrate::Migrator;

use super::Error;

/// A setting that means nothing to the server. It arrives with the others or not at all, whatever a caller changes among them.
pub(super) const MARK: (&str, &str) = ("chassis.settings", "arrived");

/// A pooler that refuses the settings that a session begins with.
#[derive(Debug, thiserror::Error)]
#[error(
    "a pooler such as PgBouncer is between this program and PostgreSQL and refuses the session's settings; name PostgreSQL itself in the \
     database url"
)]
struct Pooler(#[source] sqlx::Error);

/// Names the pooler, if one refused the session: its own words say only which parameter it does not know.
pub(super) fn explained(error: sqlx::Error) -> sqlx::Error {
    let refuses =
        error.as_database_error().is_some_and(|answer| answer.message().contains("unsupported startup parameter"));
    if refuses { sqlx::Error::Configuration(Pooler(error).into()) } else { error }
}

/// Refuses a way to the database on which the settings of [`super::connect_options`] get lost: a pooler that ignores them.
///
/// A session without them has no deadlines and keeps the rights of its login.
///
/// # Errors
///
/// [`Error::SettingsLost`], or the database's.
pub async fn assert_settings(connection: &mut PgConnection) -> Result<(), Error> {
    let marked: Option<String> = sqlx::query_scalar("select current_setting($1, true)")
        .bind(MARK.0)
        .fetch_one(connection)
        .await
        .map_err(Error::Unreachable)?;
    if marked.as_deref() == Some(MARK.1) { Ok(()) } else { Err(Error::SettingsLost) }
}

/// Refuses a database whose tables are another program's, and a `search_path` that names no schema.
///
/// # Errors
///
/// [`Error::AnotherProgram`], [`Error::NoSchema`], or the database's.
pub async fn assert_ours(connection: &mut PgConnection, migrator: &Migrator) -> Result<(), Error> {
    let (schema, migrated): (Option<String>, bool) =
        sqlx::query_as("select current_schema()::text, to_regclass('_sqlx_migrations') is not null")
            .fetch_one(&mut *connection)
            .await
            .map_err(Error::Unreachable)?;
    if schema.is_none() {
        return Err(Error::NoSchema);
    }
    // Migrations are only ever added, so the first one tells whose they are.
    let Some(ours) = migrator.iter().next().filter(|_| migrated) else { return Ok(()) };
    let theirs: Option<String> = sqlx::query_scalar("select description from _sqlx_migrations where version = $1")
        .bind(ours.version)
        .fetch_optional(connection)
        .await
        .map_err(Error::Unreachable)?;
    match theirs {
        Some(theirs) if theirs != ours.description => {
            Err(Error::AnotherProgram { theirs, ours: ours.description.to_string() })
        }
        _ => Ok(()),
    }
}
