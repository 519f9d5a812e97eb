//! The way back: the generation that was served before is brought up to date and served again.

use chrono::Utc;
use tokio_util::sync::CancellationToken;

use super::{Error, Making, Rebuild};
use crate::generation::{Live, Number};

impl Rebuild {
    /// Goes back to the generation before, once it has what was applied since.
    ///
    /// # Errors
    ///
    /// See [`Error`]. What is served stays as it is then.
    pub async fn roll_back(&self, shutdown: &CancellationToken) -> Result<Number, Error> {
        let live = self.generations.live().await?;
        let previous = live.previous.ok_or(Error::NoPrevious { number: live.number })?;
        if self.generations.look(previous).await?.is_none() {
            return Err(Error::NoPrevious { number: live.number });
        }
        let mut making = self.open(previous).await?;
        let moved = self.go_back(&mut making, live, shutdown).await;
        making.close().await;
        moved.map(|()| previous)
    }

    async fn go_back(&self, making: &mut Making, live: Live, shutdown: &CancellationToken) -> Result<(), Error> {
        making.wait_for_turn(shutdown).await?;
        self.read_topic(making, shutdown).await?;
        let served = self.generations.open(live.number).await?.store;
        let carried = self.carry_over(making, &served).await;
        served.close().await;
        carried?;
        let now_micros = Utc::now().timestamp_micros();
        self.promote(making, live, now_micros).await
    }
}
