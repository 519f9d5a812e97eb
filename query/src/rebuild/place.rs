//! Where the next generation goes, and which ones go away.

use chassis::telemetry::ErrorChain;

use super::{Error, Rebuild};
use crate::generation::{FIRST, Live, Number, Revisions};
use crate::store::Opened;

impl Rebuild {
    /// The generation to go on with, or a new place. One that was begun otherwise is removed, unless somebody is at it.
    pub(super) async fn place(&self, live: Live) -> Result<Number, Error> {
        let last = self.generations.numbers().await?.last().copied().unwrap_or(FIRST);
        if last <= live.number || last == FIRST {
            return Ok(self.generations.make_next().await?);
        }
        match self.generations.look(last).await? {
            // Somebody has made its place a moment ago, or went no further.
            None => Ok(last),
            Some(begun) if begun.is_begun() && begun.revisions == Revisions::ours() && begun.source == self.source => {
                tracing::info!(generation = last, "a generation that was begun is gone on with");
                Ok(last)
            }
            // The way back stays.
            Some(_found) if live.previous == Some(last) => Ok(self.generations.make_next().await?),
            Some(_found) => {
                let Some(seized) = self.generations.seize(last).await? else {
                    return Err(Error::Busy { number: last });
                };
                // Numbers are not used again: whoever still has the old one open must not meet the new one.
                let next = self.generations.make_next().await?;
                tracing::info!(generation = last, "a generation that will not be served is removed");
                self.remove(last, seized).await?;
                Ok(next)
            }
        }
    }

    /// Removes a generation that we alone have open.
    async fn remove(&self, number: Number, seized: Opened) -> Result<(), Error> {
        let Opened { store, writer, keeper } = seized;
        store.close().await;
        if number == FIRST {
            // Only its rows go; its right is kept until they are gone.
            self.generations.remove(number).await?;
            writer.close().await?;
        } else {
            writer.close().await?;
            self.generations.remove(number).await?;
        }
        drop(keeper);
        Ok(())
    }

    /// The one before stays for a way back; what is older goes, unless a node still has it.
    pub(super) async fn prune(&self, live: Live) {
        let kept = [Some(live.number), live.previous];
        let numbers = self.generations.numbers().await.unwrap_or_default();
        for number in numbers.into_iter().filter(|number| !kept.contains(&Some(*number)) && *number < live.number) {
            let removed = match self.generations.seize(number).await {
                Ok(Some(seized)) => self.remove(number, seized).await,
                Ok(None) => Err(Error::Busy { number }),
                Err(error) => Err(error.into()),
            };
            match removed {
                Ok(()) => tracing::info!(generation = number, "an old generation is removed"),
                Err(error) => {
                    tracing::warn!(error = %ErrorChain(&error), generation = number, "an old generation is not removed");
                }
            }
        }
    }
}
