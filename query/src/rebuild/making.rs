//! A generation that is being brought up to date: its projector, the right to write it, and how far it is.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use chrono::Utc;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{Error, Phase, Rebuild, Told, stopping};
use crate::follow::{Projecting, passed_on};
use crate::freshness::Freshness;
use crate::generation::{Built, Number};
use crate::progress::Progress;
use crate::projector::Projector;
use crate::store::{Opened, Store, Turn};

/// How long another builder may hold the right to write before we give up.
const TURN_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long to rest before looking again.
pub(super) const REST: Duration = Duration::from_millis(100);

/// A generation in the making.
pub(super) struct Making {
    pub(super) number: Number,
    pub(super) projector: Projector,
    pub(super) progress: Progress,
    pub(super) store: Store,
    pub(super) read: u64,
    pub(super) reading: Duration,
    /// When the progress was told, and of how many records.
    pub(super) told: (Instant, i64),
    pub(super) rate_per_s: u64,
    /// How much of the source was read when that was last looked at.
    pub(super) built: Built,
    keeper: Option<JoinHandle<Result<(), Infallible>>>,
}

impl Rebuild {
    /// Opens a generation to write to it. Readers and metrics are told nothing of it.
    pub(super) async fn open(&self, number: Number) -> Result<Making, Error> {
        let Opened { store, mut writer, keeper } = self.generations.open(number).await?;
        // The lease that the keeper looks after is one of the tables.
        writer.migrate().await?;
        let keeper = keeper.map(|keeper| tokio::spawn(keeper.run()));
        let (freshness, progress) = (Freshness::default(), Progress::default());
        let projecting = Projecting { freshness, progress: progress.clone(), ..self.projecting.clone() };
        Ok(Making {
            number,
            projector: projecting.projector(writer).building(),
            progress,
            store,
            read: 0,
            reading: Duration::ZERO,
            told: (Instant::now(), 0),
            rate_per_s: 0,
            built: Built::default(),
            keeper,
        })
    }

    /// Tells whoever watches how far it is.
    pub(super) fn tell(&self, making: &Making, phase: Phase) {
        let Making { number, built, rate_per_s, .. } = *making;
        self.telling.send_replace(Some(Told { number, phase, built, rate_per_s }));
    }
}

impl Making {
    /// Waits for the right to write, but not for long.
    pub(super) async fn wait_for_turn(&mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        let since = Instant::now();
        while self.projector.writer().turn() == Turn::NotOurs {
            if since.elapsed() > TURN_WAIT_MAX {
                return Err(Error::Busy { number: self.number });
            }
            stopping(shutdown)?;
            sleep(REST).await;
        }
        Ok(())
    }

    /// Notes how much of the source is read.
    pub(super) fn note(&mut self, done: i64, total: i64) {
        self.built = Built { done, total, told_at_micros: Utc::now().timestamp_micros() };
    }

    /// Offsets passed and offsets there are. Control records take offsets too, and the reader passes them.
    pub(super) fn place_in(&self, ends: &[(i64, i64)]) -> (i64, i64) {
        let mut place = (0, 0);
        for (partition, (low, high)) in (0..).zip(ends) {
            let next = self.projector.position(partition).unwrap_or(*low);
            place.0 += next.min(*high) - low;
            place.1 += high - low;
        }
        place
    }

    /// Closes the tables and gives the right to write back.
    pub(super) async fn close(self) {
        self.projector.close().await;
        if let Some(keeper) = self.keeper {
            passed_on(keeper.await);
        }
        self.store.close().await;
    }
}
