//! The way back: the generation that was served before is brought up to date and served again.

use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Error, Making, REST, Rebuild, TURN_WAIT_MAX};
use crate::follow::Projecting;
use crate::freshness::Freshness;
use crate::generation::{Live, Number};
use crate::progress::Progress;
use crate::store::{Opened, Turn};

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
        let Opened { store, writer, keeper } = self.generations.open(previous).await?;
        let keeper = keeper.map(|keeper| tokio::spawn(keeper.run()));
        let (freshness, progress) = (Freshness::default(), Progress::default());
        let projecting = Projecting { freshness, progress: progress.clone(), ..self.projecting.clone() };
        let told = (Instant::now(), 0);
        let mut making = Making {
            number: previous,
            projector: projecting.projector(writer).building(),
            progress,
            store: store.clone(),
            read: 0,
            reading: Duration::ZERO,
            told,
            rate_per_s: 0,
        };
        let moved = self.go_back(&mut making, live, shutdown).await;
        making.projector.close().await;
        if let Some(keeper) = keeper {
            // A panic there is told by the runtime; the pointer has moved or not.
            drop(keeper.await);
        }
        store.close().await;
        moved.map(|()| previous)
    }

    async fn go_back(&self, making: &mut Making, live: Live, shutdown: &CancellationToken) -> Result<(), Error> {
        making.projector.writer().migrate().await?;
        let since = Instant::now();
        while making.projector.writer().turn() == Turn::NotOurs {
            if since.elapsed() > TURN_WAIT_MAX {
                return Err(Error::Busy { number: making.number });
            }
            sleep(REST).await;
        }
        self.read_topic(making, shutdown).await?;
        let now_micros = Utc::now().timestamp_micros();
        self.promote(making, live, now_micros).await
    }
}
