//! What operators know and no source tells: their wishes, and since when something is not applied. A generation gets it from
//! the one that is served.

use uuid::Uuid;

use super::{Error, Making, Rebuild};
use crate::follow::WISHES_MAX;
use crate::store::Store;

/// Rows that are carried over in one transaction.
const ROWS_MAX: u32 = 1_000;

impl Rebuild {
    pub(super) async fn carry_over(&self, making: &mut Making, served: &Store) -> Result<(), Error> {
        carry_wishes(making, served).await?;
        carry_letter_ages(making, served).await?;
        carry_parked_ages(making, served).await
    }
}

/// What was discarded stays discarded: the wishes are granted here too.
async fn carry_wishes(making: &mut Making, served: &Store) -> Result<(), Error> {
    let mut after = Uuid::nil();
    loop {
        let wishes = served.lasting_wishes(after, WISHES_MAX).await?;
        let Some(last) = wishes.last() else { break };
        after = last.id;
        let mut transaction = making.projector.writer().begin().await?;
        for wish in &wishes {
            transaction.adopt(wish).await?;
        }
        transaction.commit().await?;
    }
    while making.projector.intervene().await? {}
    Ok(())
}

/// A dead letter is as old as it was: an alert about its age goes on.
async fn carry_letter_ages(making: &mut Making, served: &Store) -> Result<(), Error> {
    let mut after = (String::new(), i32::MIN, i64::MIN, Vec::new(), 0);
    loop {
        let ages = served.letter_ages(&after, ROWS_MAX).await?;
        let Some(last) = ages.last() else { return Ok(()) };
        after.clone_from(last);
        let mut transaction = making.projector.writer().begin().await?;
        for age in ages {
            transaction.letter_known(age).await?;
        }
        transaction.commit().await?;
    }
}

/// An event that waits has waited as long as before.
async fn carry_parked_ages(making: &mut Making, served: &Store) -> Result<(), Error> {
    let mut after = (Vec::new(), i64::MIN, Vec::new(), 0);
    loop {
        let ages = served.parked_ages(&after, ROWS_MAX).await?;
        let Some(last) = ages.last() else { return Ok(()) };
        after.clone_from(last);
        let mut transaction = making.projector.writer().begin().await?;
        for age in ages {
            transaction.parked_known(age).await?;
        }
        transaction.commit().await?;
    }
}
