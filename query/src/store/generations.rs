//! Where the generations of a read model are: their places, and the pointer to the live one.

use chassis::config::Secret;

use super::{Error, Opened, Turn, Writer, postgres, sqlite};
use crate::generation::{Generation, Live, Number};

/// The generations of one read model.
#[derive(Debug, Clone)]
pub enum Generations {
    /// Files of this node: the one that was named, and others beside it.
    Sqlite(Box<sqlite::Generations>),
    /// Schemas of a database that nodes share.
    Postgres(postgres::Generations),
}

/// Does it there, whichever it is.
macro_rules! there {
    ($self:ident, $generations:ident => $work:expr) => {
        match $self {
            Self::Sqlite($generations) => $work,
            Self::Postgres($generations) => $work,
        }
    };
}

impl Generations {
    /// Those of the store that `url` names. A server is first asked when it is used.
    ///
    /// # Errors
    ///
    /// When the URL names no store.
    pub fn at(url: &Secret) -> Result<Self, Error> {
        let scheme = url.expose().split_once(':').map_or("", |(scheme, _rest)| scheme);
        match scheme {
            "sqlite" => Ok(Self::Sqlite(Box::new(sqlite::Generations::at(url.expose())?))),
            "postgres" | "postgresql" => Ok(Self::Postgres(postgres::Generations::at(url)?)),
            _ => Err(Error::Unusable { reason: "its URL starts with neither sqlite: nor postgres:".to_owned() }),
        }
    }

    /// Opens a generation that exists; the first one exists always.
    ///
    /// # Errors
    ///
    /// When the database cannot be used.
    pub async fn open(&self, number: Number) -> Result<Opened, Error> {
        match self {
            Self::Sqlite(generations) => Ok(Opened::sqlite(generations.open(number).await?)),
            Self::Postgres(generations) => Ok(Opened::postgres(generations.open(number).await?)),
        }
    }

    /// Opens a generation if this process can have the right to write it now, and with that right; none when another one
    /// has it. The right lasts as long as the writer, and in PostgreSQL as its lease.
    ///
    /// # Errors
    ///
    /// When the database cannot be used.
    pub async fn seize(&self, number: Number) -> Result<Option<Opened>, Error> {
        let mut opened = self.open(number).await?;
        let ours = match &opened.keeper {
            Some(keeper) => keeper.step().await?,
            None => opened.writer.turn() != Turn::NotOurs,
        };
        Ok(ours.then_some(opened))
    }

    /// Which generation is served. The first one's tables must be there.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn live(&self) -> Result<Live, Error> {
        let (number, previous) = there!(self, generations => generations.live().await?);
        Ok(Live { number, previous })
    }

    /// The generations that have a place, in order.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn numbers(&self) -> Result<Vec<Number>, Error> {
        there!(self, generations => generations.numbers().await)
    }

    /// What every generation tells about itself, in order.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn list(&self) -> Result<Vec<Generation>, Error> {
        let mut list = Vec::new();
        for number in self.numbers().await? {
            list.extend(self.look(number).await?);
        }
        Ok(list)
    }

    /// What a generation tells about itself; none when it has no tables or is empty.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn look(&self, number: Number) -> Result<Option<Generation>, Error> {
        there!(self, generations => generations.look(number).await)
    }

    /// Makes a place for the next generation.
    ///
    /// # Errors
    ///
    /// When the database fails, or another node makes it at this moment.
    pub async fn make_next(&self) -> Result<Number, Error> {
        let next = self.numbers().await?.last().copied().unwrap_or_default() + 1;
        there!(self, generations => generations.make(next).await?);
        Ok(next)
    }

    /// Moves the pointer from `from` to `to`, whose writer is given; in PostgreSQL only under its lease.
    ///
    /// # Errors
    ///
    /// [`Error::Superseded`] when the pointer is elsewhere, or another node has the lease; else when the database fails.
    pub async fn promote(&self, writer: &mut Writer, from: Number, to: Number, now_micros: i64) -> Result<(), Error> {
        match (self, writer) {
            (Self::Sqlite(generations), Writer::Sqlite(_)) => generations.promote(from, to, now_micros).await,
            (Self::Postgres(generations), Writer::Postgres(writer)) => {
                generations.promote(writer, from, to, now_micros).await
            }
            _ => Err(Error::Superseded),
        }
    }

    /// Removes a generation with everything in it. Of the first one only the tables' rows go.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn remove(&self, number: Number) -> Result<(), Error> {
        there!(self, generations => generations.remove(number).await)
    }

    /// Closes what was opened to ask for the pointer.
    pub async fn close(&self) {
        there!(self, generations => generations.close().await);
    }
}
