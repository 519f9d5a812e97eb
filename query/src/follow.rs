//! The node's place: it serves the live generation and projects into it, and moves on when the pointer moves.
//!
//! - **Invariant:** readers are never pointed to a generation that is behind what they were served from: the old one's
//!   projection stops, the new one passes it, and only then the next question is answered from there.

use std::convert::Infallible;
use std::time::Duration;

use chassis::config::Kafka;
use chassis::telemetry::ErrorChain;
use domain::Currency;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::checkpoint::Checkpoints;
use crate::freshness::Freshness;
use crate::generation::{Age, FIRST, Live, Number, Revisions, State};
use crate::healing::Healer;
use crate::log::LogClient;
use crate::progress::Progress;
use crate::projector::Projector;
use crate::reader::TopicReader;
use crate::store::desk::Desk;
use crate::store::{self, Generations, Opened, Store, Writer};

/// How often the pointer is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often the new generation is compared with the old one while it passes it.
const OVERTAKE_INTERVAL: Duration = Duration::from_millis(20);
/// How long requests may take that were begun on the generation before.
const LEAVE_AFTER: Duration = Duration::from_secs(30);
/// When to try a generation again that could not be served.
const REFUSED_REST: Duration = Duration::from_secs(5);
/// How long that may take. Beyond it the topic cannot be what the old generation was read from.
const OVERTAKE_MAX: Duration = Duration::from_secs(60);

/// Wishes that are carried over at once.
pub(crate) const WISHES_MAX: u32 = 1_000;

/// How this node's projectors are made.
#[derive(Debug, Clone)]
pub struct Projecting {
    /// The topic.
    pub kafka: Kafka,
    /// Of messages that name none.
    pub default_currency: Currency,
    /// Readers who wait.
    pub freshness: Freshness,
    /// How it is going.
    pub progress: Progress,
    /// How many changes are kept for streams that resume.
    pub changes_kept: u32,
    /// Where orders are healed from, if anywhere.
    pub log: Option<LogClient>,
}

/// What answers on this node, pointed to the live generation.
#[derive(Debug, Clone)]
pub struct Served {
    /// What the API asks.
    pub store: Store,
    /// Where wishes are written.
    pub desk: Desk,
}

impl Projecting {
    /// One that reads the topic into these tables.
    pub fn projector(&self, writer: Writer) -> Projector {
        let reader = TopicReader::new(self.kafka.brokers.clone(), self.kafka.topic_spec());
        Projector::new(writer, reader, self.default_currency, self.freshness.clone(), self.progress.clone())
            .keeping(self.changes_kept)
    }
}

/// Opens the live generation, bringing its tables up to date first where `migrate` says so.
///
/// # Errors
///
/// When the database cannot be used, or the live generation was filled by a newer program or with another default currency.
pub async fn open_live(
    generations: &Generations,
    default_currency: Currency,
    migrate: bool,
) -> Result<(Number, Opened), store::Error> {
    let mut first = generations.open(FIRST).await?;
    if migrate {
        first.writer.migrate().await?;
    }
    let Live { number, .. } = generations.live().await?;
    if number == FIRST {
        usable(&first, default_currency).await?;
        return Ok((number, first));
    }
    first.writer.close().await?;
    first.store.close().await;
    Ok((number, open(generations, number, default_currency, migrate).await?))
}

async fn open(
    generations: &Generations,
    number: Number,
    default_currency: Currency,
    migrate: bool,
) -> Result<Opened, store::Error> {
    let mut opened = generations.open(number).await?;
    if migrate {
        opened.writer.migrate().await?;
    }
    usable(&opened, default_currency).await?;
    Ok(opened)
}

async fn usable(opened: &Opened, default_currency: Currency) -> Result<(), store::Error> {
    match opened.store.generation().await? {
        Some(generation) if generation.revisions.age() == Age::Newer => Err(store::Error::Unusable {
            reason: format!(
                "generation {} was filled by a newer program ({}): run that one, or go back with `order-query rollback`",
                generation.number, generation.revisions
            ),
        }),
        Some(generation) if generation.state == State::Building => {
            Err(store::Error::Unusable { reason: format!("generation {} is not complete", generation.number) })
        }
        _ => opened.store.fits_currency(default_currency).await,
    }
}

/// What serves and projects on this node.
#[derive(Debug)]
pub struct Follower {
    generations: Generations,
    projecting: Projecting,
    migrate: bool,
    served: Served,
    on: On,
    /// Generations that were served until a moment ago.
    leaving: JoinSet<()>,
    /// The last generation that could not be served, and when.
    refused: Option<(Number, Instant)>,
}

/// A generation that is projected into.
#[derive(Debug)]
struct On {
    number: Number,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), Infallible>>,
}

impl On {
    fn start(number: Number, opened: Opened, projecting: &Projecting) -> Self {
        let Opened { store, writer, keeper } = opened;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let mut projector = projecting.projector(writer);
        if let Some(log) = projecting.log.clone() {
            let (healer, healing) = Healer::new(log, store, projecting.progress.clone());
            tasks.spawn(healer.run(stop.clone()));
            projector = projector.healed_by(healing);
        }
        tasks.spawn(projector.run(stop.clone()));
        if let Some(keeper) = keeper {
            // Ends when the projector has closed its writer.
            tasks.spawn(keeper.run());
        }
        Self { number, stop, tasks }
    }

    /// Until the projector has finished its step, closed its writer and given its right back.
    async fn stop(&mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            passed_on(ended);
        }
    }
}

/// A panic below is one of this task.
pub(crate) fn passed_on(ended: Result<Result<(), Infallible>, tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

impl Follower {
    /// Follows the pointer from the generation that `opened` is. Starts to project at once.
    pub fn start(
        generations: Generations,
        projecting: Projecting,
        migrate: bool,
        served: Served,
        (number, opened): (Number, Opened),
    ) -> Self {
        let on = On::start(number, opened, &projecting);
        Self { generations, projecting, migrate, served, on, leaving: JoinSet::new(), refused: None }
    }

    /// Follows until `shutdown`, then stops projecting.
    ///
    /// # Errors
    ///
    /// None: what fails is told, and tried again.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Infallible> {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(ended) = self.on.tasks.join_next() => passed_on(ended),
                Some(left) = self.leaving.join_next() => {
                    if let Err(error) = left {
                        tracing::warn!(%error, "a generation was not left in good order");
                    }
                }
                () = sleep(LOOK_INTERVAL) => self.step(shutdown.clone()).await,
            }
        }
        self.on.stop().await;
        // Nobody asks any more.
        self.leaving.shutdown().await;
        Ok(())
    }

    /// Looks at the pointer, and moves on if it moved.
    async fn step(&mut self, shutdown: CancellationToken) {
        match self.generations.live().await {
            Ok(Live { number, .. }) if number != self.on.number => {
                let resting = |(refused, at): (Number, Instant)| refused == number && at.elapsed() < REFUSED_REST;
                if self.refused.is_some_and(resting) {
                    return;
                }
                if let Err(error) = self.move_to(number, shutdown).await {
                    self.refused = Some((number, Instant::now()));
                    tracing::error!(
                        error = %ErrorChain(&error),
                        generation = number,
                        "the live generation cannot be served: this node stays with the one it has"
                    );
                }
            }
            Ok(_same) => {}
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "the live generation cannot be asked for now");
            }
        }
    }

    /// What was discarded while the pointer moved is discarded here too, and what was not granted yet is granted here;
    /// whatever was carried over before is known.
    async fn carry_wishes(&self, before: &Store) {
        let carried = async {
            let mut after = Uuid::nil();
            loop {
                let wishes = before.lasting_wishes(after, WISHES_MAX).await?;
                let Some(last) = wishes.last() else { return Ok::<(), store::Error>(()) };
                after = last.id;
                for wish in &wishes {
                    self.served.desk.write(wish).await?;
                }
            }
        };
        if let Err(error) = carried.await {
            tracing::warn!(error = %ErrorChain(&error), "operators' wishes of the last moment may not be carried over");
        }
    }

    async fn move_to(&mut self, number: Number, shutdown: CancellationToken) -> Result<(), store::Error> {
        let opened = open(&self.generations, number, self.projecting.default_currency, self.migrate).await?;
        let (next, desk) = (opened.store.clone(), opened.writer.desk());
        let revisions = next.generation().await?.map_or_else(Revisions::ours, |generation| generation.revisions);
        self.on.stop().await;
        self.on = On::start(number, opened, &self.projecting);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = overtaken(self.served.store.clone(), next.clone(), self.projecting.progress.clone()) => {}
        }
        self.projecting.progress.moves_to(&revisions);
        let before = self.served.store.point_to(&next);
        let desk_before = self.served.desk.point_to(&desk);
        self.projecting.progress.filled_by(revisions);
        self.projecting.freshness.announce_all();
        self.carry_wishes(&before).await;
        tracing::info!(generation = number, "this generation is served now");
        // Whoever asked a moment ago still has it, and may wait for a connection.
        self.leaving.spawn(async move {
            sleep(LEAVE_AFTER).await;
            desk_before.close().await;
            before.close().await;
        });
        Ok(())
    }
}

/// Until everything that `before` shows is in `next` too.
async fn overtaken(before: Store, next: Store, progress: Progress) {
    let deadline = Instant::now() + OVERTAKE_MAX;
    // While the topic is away the old rows are as good as any, and nobody is shown less.
    while Instant::now() < deadline || progress.trouble().is_some_and(|trouble| trouble.blind) {
        match passed(&before, &next).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => tracing::debug!(error = %ErrorChain(&error), "the checkpoints cannot be asked for now"),
        }
        sleep(OVERTAKE_INTERVAL).await;
    }
    tracing::warn!("the next generation does not reach what was served so far; it was verified, and is served now");
}

async fn passed(before: &Store, next: &Store) -> Result<bool, store::Error> {
    // In this order: what is served may still grow, where another node has not seen the pointer move.
    let before = before.checkpoints().await?;
    Ok(has_passed(&before, &next.checkpoints().await?))
}

/// Offsets of another topic cannot be compared: there what is verified counts.
fn has_passed(before: &Checkpoints, next: &Checkpoints) -> bool {
    if before.of != next.of {
        return before.of.is_none() || next.of.is_some();
    }
    before.partitions.iter().all(|known| {
        let next = next.partitions.iter().find(|next| next.partition == known.partition);
        next.is_some_and(|next| next.next_offset() >= known.next_offset())
    })
}
