//! Where operators' wishes are written down, by any node and beside whoever projects.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};

use super::intake::{self, write_wishes};
use super::{Error, Writer};
use crate::intervention::Intervention;

/// The most wishes that wait at once.
const UNDONE_MAX: i64 = 1_000;
/// Operators are few.
const CONNECTIONS_MAX: u32 = 2;
/// How long a wish waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes wishes, and nothing else. Cheap to clone; clones write to the same generation, as with [`super::Store`].
#[derive(Debug, Clone)]
pub struct Desk {
    place: Arc<RwLock<Place>>,
}

/// Where wishes are written.
#[derive(Debug, Clone)]
enum Place {
    /// A file of this node: it is opened for each wish, and waits for the projector's lock.
    Sqlite(Box<SqliteConnectOptions>),
    /// A database that nodes share.
    Postgres(PgPool),
}

impl Writer {
    /// A desk beside this writer.
    pub fn desk(&self) -> Desk {
        let place = match self {
            Self::Sqlite(writer) => Place::Sqlite(Box::new(writer.options().clone())),
            Self::Postgres(writer) => {
                let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(ACQUIRE_TIMEOUT);
                Place::Postgres(pool.connect_lazy_with(writer.options()))
            }
        };
        Desk { place: Arc::new(RwLock::new(place)) }
    }
}

impl Desk {
    fn place(&self) -> Place {
        // An assignment cannot stop half-way.
        self.place.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes where `other` does, from the next wish on; gives back the desk as it was.
    #[must_use = "the old one is to be closed"]
    pub fn point_to(&self, other: &Self) -> Self {
        let next = other.place();
        let mut place = self.place.write().unwrap_or_else(PoisonError::into_inner);
        Self { place: Arc::new(RwLock::new(std::mem::replace(&mut *place, next))) }
    }

    /// Writes a wish down; false when too many wait already, or the projector keeps its file locked for too long.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn write(&self, wish: &Intervention) -> Result<bool, Error> {
        match self.place() {
            Place::Sqlite(options) => {
                let mut connection = SqliteConnection::connect_with(&options).await?;
                let written: Result<bool, Error> = async { write_wishes!(&mut connection, wish, UNDONE_MAX) }.await;
                connection.close().await?;
                match written {
                    Err(Error::Database(error)) if is_busy(&error) => Ok(false),
                    written => written,
                }
            }
            Place::Postgres(pool) => write_wishes!(&pool, wish, UNDONE_MAX),
        }
    }

    /// Closes what is open.
    pub async fn close(&self) {
        if let Place::Postgres(pool) = self.place() {
            pool.close().await;
        }
    }
}

/// Whether somebody else's lock is all that is wrong with a file.
fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: i32 = 5;
    let code = error.as_database_error().and_then(|error| error.code());
    // Extended codes have the plain one in their last byte.
    code.and_then(|code| code.parse::<i32>().ok()).is_some_and(|code| code & 0xff == BUSY)
}
