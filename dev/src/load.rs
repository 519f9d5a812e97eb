//! `order-dev load`: orders at a given rate, and how long that took.
//!
//! The load is an open loop: commands are due on a schedule that does not wait for answers, and their latency
//! counts from the moment they were due. A server that stops for a second is thereby charged for every
//! command that was due in that second, not only for the one that happened to be waiting.

mod book;
mod report;
mod send;
mod visible;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::interval;

use self::book::Book;
use self::report::Tally;
use self::send::Target;
use self::visible::Watch;
use crate::config::LoadArgs;
use crate::error::{Attempt as _, Error};
use crate::signals::Signals;
use crate::terminal::say;

/// An answer that takes longer counts as an error.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Shorter than the services keep an idle connection, so that none is used in the moment they close it.
const IDLE_MAX: Duration = Duration::from_secs(3);
/// How many seconds' worth of commands may be overdue before further ones are given up unsent.
const OVERDUE_SECONDS_MAX: usize = 10;
/// Latencies are kept one by one, four bytes each.
const COMMANDS_MAX: u64 = 50_000_000;
/// How often the progress is drawn, and how often it is a line where there is no terminal.
const DRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY_DRAWS: u32 = 25;

/// One command that is to be sent.
#[derive(Debug, Clone, Copy)]
struct Due {
    sequence: u64,
    at: Instant,
}

/// Everything that the parts share.
#[derive(Debug)]
struct Run {
    target: Target,
    book: Book,
    tally: Tally,
    watch: Watch,
}

/// Sends the load and prints the report.
///
/// # Errors
/// When the services do not answer at all, or not one command succeeded.
pub(crate) async fn run(args: &LoadArgs) -> Result<(), Error> {
    let mut signals = Signals::listen()?;
    let total = u64::from(args.rate) * u64::from(args.duration);
    if total > COMMANDS_MAX {
        return Err(Error::Usage(format!("{total} commands are too many for one run: at most {COMMANDS_MAX}")));
    }
    let client = reqwest::Client::builder().timeout(ANSWER_WITHIN).pool_idle_timeout(IDLE_MAX).no_proxy().build();
    let client = client.map_err(std::io::Error::other).attempt(|| "make an HTTP client".to_owned())?;
    let target = Target::new(client, args);
    target.check().await?;
    let watch = Watch::new(&target);
    let run = Arc::new(Run { target, book: Book::default(), tally: Tally::default(), watch });

    let begun = Instant::now();
    let progress = tokio::spawn(show_progress(run.clone(), total));
    tokio::select! {
        () = send_all(&run, args, total, begun) => {}
        () = signals.next() => say("\nstopped early; what was done so far:"),
    }
    let took = begun.elapsed();
    tokio::select! {
        () = run.watch.finish() => {}
        () = signals.next() => {}
    }
    progress.abort();
    // It is aborted at a pause between two drawings, and has nothing to say any more.
    progress.await.ok();
    say(run.tally.report(args, took));
    if run.tally.succeeded() == 0 { Err(Error::Usage("not one command succeeded".to_owned())) } else { Ok(()) }
}

/// Sends what is due until the schedule is through and everything is answered.
async fn send_all(run: &Arc<Run>, args: &LoadArgs, total: u64, begun: Instant) {
    let capacity = usize::try_from(args.rate).unwrap_or(usize::MAX).saturating_mul(OVERDUE_SECONDS_MAX);
    let (sender, mut due) = mpsc::channel(capacity);
    let (rate, scheduled) = (u64::from(args.rate), run.clone());
    // A thread of its own wakes to within some 50 µs; the runtime's timer would add up to a millisecond.
    let schedule = thread::spawn(move || keep_schedule(&scheduled.tally, &sender, total, rate, begun));
    let slots = Arc::new(Semaphore::new(usize::from(args.connections)));
    let mut in_flight = JoinSet::new();
    while let Some(next) = due.recv().await {
        // The semaphore is never closed.
        let Ok(slot) = slots.clone().acquire_owned().await else { break };
        let run = run.clone();
        in_flight.spawn(async move {
            one(&run, next).await;
            drop(slot);
        });
        while in_flight.try_join_next().is_some() {}
    }
    while in_flight.join_next().await.is_some() {}
    // It ended when it dropped the sender.
    schedule.join().ok();
}

/// Hands over each command when it is due; gives it up when far too many wait already.
fn keep_schedule(tally: &Tally, sender: &mpsc::Sender<Due>, total: u64, rate: u64, begun: Instant) {
    for sequence in 0..total {
        let at = begun + Duration::from_nanos(sequence.saturating_mul(1_000_000_000) / rate);
        if let Some(wait) = at.checked_duration_since(Instant::now()) {
            thread::sleep(wait);
        }
        match sender.try_send(Due { sequence, at }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => tally.failed("not sent: too many overdue".to_owned()),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
    }
}

/// Sends one command and takes note of what became of it.
async fn one(run: &Arc<Run>, due: Due) {
    let (kind, order) = run.book.choose(due.sequence);
    match run.target.send(kind, order.as_deref(), due.sequence).await {
        Ok(accepted) => {
            run.tally.succeeded_after(kind, due.at.elapsed());
            run.watch.consider(run, &accepted);
            run.book.note(kind, accepted.order_id);
        }
        Err(cause) => run.tally.failed(format!("{}: {cause}", kind.name())),
    }
}

/// A bar at a terminal, a line now and then elsewhere.
async fn show_progress(run: Arc<Run>, total: u64) {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let template = "{elapsed_precise} {wide_bar} {pos}/{len} {per_sec} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = interval(DRAW_EVERY);
    let mut draws = 0_u32;
    loop {
        ticks.tick().await;
        draws += 1;
        let (done, failed) = (run.tally.succeeded(), run.tally.failures());
        if terminal {
            bar.set_position(done + failed);
            bar.set_message(format!("{failed} failed"));
        } else if draws.is_multiple_of(LINE_EVERY_DRAWS) {
            say(format!("{} of {total} answered, {failed} failed", done + failed));
        }
    }
}
