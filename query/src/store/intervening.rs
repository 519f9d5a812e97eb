//! What the projector loads and saves when it grants an operator's wish, in whichever store there is.

use std::collections::BTreeSet;

use domain::OrderId;

use super::intake::{LetterAge, ParkedAge};
use super::{Error, StoredLetter, Transaction};
use crate::batch::ParkedKey;
use crate::intake::{Digest, Incoming, Position, Reason};
use crate::intervention::{Intervention, LetterKey};

/// Does it in the transaction, whichever it is.
macro_rules! within {
    ($self:ident, $transaction:ident => $work:expr) => {
        match $self {
            Self::Sqlite($transaction) => $work,
            Self::Postgres($transaction) => $work,
        }
    };
}

impl Transaction<'_> {
    /// The wishes that are not granted, in the order of asking, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn undone(&mut self, limit: u32) -> Result<Vec<Intervention>, Error> {
        within!(self, transaction => transaction.undone(limit).await)
    }

    /// Writes how far a wish is granted and what came of it.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn progressed(&mut self, wish: &Intervention) -> Result<(), Error> {
        within!(self, transaction => transaction.progressed(wish).await)
    }

    /// Keeps the age of a dead letter that another generation knew earlier.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn letter_known(&mut self, age: LetterAge) -> Result<(), Error> {
        within!(self, transaction => transaction.letter_known(age).await)
    }

    /// Keeps the age of a waiting event that another generation knew earlier.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub(crate) async fn parked_known(&mut self, age: ParkedAge) -> Result<(), Error> {
        within!(self, transaction => transaction.parked_known(age).await)
    }

    /// One dead letter, discarded or not.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn dead_letter(&mut self, key: &LetterKey) -> Result<Option<StoredLetter>, Error> {
        within!(self, transaction => transaction.dead_letter(key).await)
    }

    /// The dead letters after `key`, oldest first, at most `limit`; none of them discarded.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn dead_letters_after(&mut self, key: &LetterKey, limit: u32) -> Result<Vec<StoredLetter>, Error> {
        within!(self, transaction => transaction.dead_letters_after(key, limit).await)
    }

    /// Those of these records of a topic that are discarded dead letters; perhaps others of the topic besides.
    ///
    /// # Errors
    ///
    /// When the database fails or holds what we cannot have written.
    pub async fn discarded_letters(
        &mut self,
        topic: &str,
        incoming: &[Incoming],
    ) -> Result<BTreeSet<(Position, Digest)>, Error> {
        let offsets = incoming.iter().map(|incoming| incoming.record.position.offset);
        let (Some(first), Some(last)) = (offsets.clone().min(), offsets.max()) else {
            return Ok(BTreeSet::new());
        };
        within!(self, transaction => transaction.discarded_letters(topic, (first, last)).await)
    }

    /// Removes a dead letter that is none any more.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn remove_letter(&mut self, key: &LetterKey) -> Result<(), Error> {
        within!(self, transaction => transaction.remove_letter(key).await)
    }

    /// Writes why a dead letter still is one.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn renew_letter(&mut self, key: &LetterKey, reason: Reason, detail: &str) -> Result<(), Error> {
        within!(self, transaction => transaction.renew_letter(key, reason.code(), detail).await)
    }

    /// Discards a dead letter; false when there is none, or it is discarded already.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn discard_letter(&mut self, key: &LetterKey, reason: &str, now_micros: i64) -> Result<bool, Error> {
        Ok(within!(self, transaction => transaction.discard_letter(key, reason, now_micros).await?) > 0)
    }

    /// Discards a waiting event; false when there is none, or it is discarded already.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn discard_parked(&mut self, key: ParkedKey, reason: &str, now_micros: i64) -> Result<bool, Error> {
        Ok(within!(self, transaction => transaction.discard_parked(key, reason, now_micros).await?) > 0)
    }

    /// The orders after `after` of which something waits, by id, at most `limit`.
    ///
    /// # Errors
    ///
    /// When the database fails.
    pub async fn waiting_orders(&mut self, after: Option<OrderId>, limit: u32) -> Result<Vec<OrderId>, Error> {
        within!(self, transaction => transaction.waiting_orders(after, limit).await)
    }
}
