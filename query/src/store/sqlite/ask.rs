//! Questions to the writer's connection, worded as sqlx's are: what is the same in either database is written once, and each
//! store brings its own `query`, `query_as` and `query_scalar`.

use std::future::{Ready, ready};

use rusqlite::types::FromSql;
use rusqlite::{CachedStatement, Connection, Error, Row, ToSql};
use sqlx::{SqlSafeStr, SqlStr};

type Read<O> = for<'r> fn(&'r Row<'r>) -> Result<O, Error>;

/// A statement with what is bound to its parameters, `$1` first.
pub(super) struct Question<'q, O> {
    statement: SqlStr,
    bound: Vec<Box<dyn ToSql + Send + 'q>>,
    read: Read<O>,
}

/// What a statement changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changed(usize);

impl Changed {
    /// How many rows.
    pub(super) fn rows_affected(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }
}

/// A statement that answers nothing.
pub(super) fn query<'q>(statement: impl SqlSafeStr) -> Question<'q, ()> {
    Question { statement: statement.into_sql_str(), bound: Vec::new(), read: |_row| Ok(()) }
}

/// A statement that answers rows.
pub(super) fn query_as<'q, O>(statement: impl SqlSafeStr) -> Question<'q, O>
where
    O: for<'r> TryFrom<&'r Row<'r>, Error = Error>,
{
    Question { statement: statement.into_sql_str(), bound: Vec::new(), read: |row| O::try_from(row) }
}

/// A statement that answers rows of one column.
pub(super) fn query_scalar<'q, O: FromSql>(statement: impl SqlSafeStr) -> Question<'q, O> {
    Question { statement: statement.into_sql_str(), bound: Vec::new(), read: |row| row.get(0) }
}

impl<'q, O> Question<'q, O> {
    /// Binds the next parameter.
    pub(super) fn bind(mut self, value: impl ToSql + Send + 'q) -> Self {
        self.bound.push(Box::new(value));
        self
    }

    /// Does it.
    pub(super) fn execute(self, connection: &mut Connection) -> Ready<Result<Changed, Error>> {
        ready(self.prepare(connection).and_then(|mut statement| statement.raw_execute().map(Changed)))
    }

    /// All rows.
    pub(super) fn fetch_all(self, connection: &mut Connection) -> Ready<Result<Vec<O>, Error>> {
        ready(self.rows(connection, usize::MAX))
    }

    /// The first row, if there is one.
    pub(super) fn fetch_optional(self, connection: &mut Connection) -> Ready<Result<Option<O>, Error>> {
        ready(self.rows(connection, 1).map(|mut rows| rows.pop()))
    }

    /// The first row.
    pub(super) fn fetch_one(self, connection: &mut Connection) -> Ready<Result<O, Error>> {
        ready(self.rows(connection, 1).and_then(|mut rows| rows.pop().ok_or(Error::QueryReturnedNoRows)))
    }

    fn rows(self, connection: &Connection, limit: usize) -> Result<Vec<O>, Error> {
        let mut statement = self.prepare(connection)?;
        let (mut answer, mut found) = (statement.raw_query(), Vec::new());
        while found.len() < limit
            && let Some(row) = answer.next()?
        {
            found.push((self.read)(row)?);
        }
        Ok(found)
    }

    /// By name: SQLite numbers named parameters as they come, not as they are called.
    fn prepare<'c>(&self, connection: &'c Connection) -> Result<CachedStatement<'c>, Error> {
        let mut statement = connection.prepare_cached(self.statement.as_str())?;
        for (number, value) in (1..).zip(&self.bound) {
            statement.raw_bind_parameter(format!("${number}").as_str(), &**value)?;
        }
        Ok(statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn parameters_are_bound_by_their_numbers() {
        let mut connection = Connection::open_in_memory().unwrap();
        let question = query_as("select $2 || $1, $2").bind("b").bind("a");
        let found: (String, String) = question.fetch_one(&mut connection).await.unwrap();
        assert_eq!(found, ("ab".to_owned(), "a".to_owned()));
    }

    #[tokio::test]
    async fn what_is_not_bound_is_not_kept_from_the_question_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        for (bound, expected) in [(Some(1_i64), Some(1)), (None, None)] {
            let mut question = query_scalar("select $1");
            if let Some(bound) = bound {
                question = question.bind(bound);
            }
            let found: Option<i64> = question.fetch_one(&mut connection).await.unwrap();
            assert_eq!(found, expected);
        }
    }
}
