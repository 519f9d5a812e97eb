//! The children that were started, in order: start, watch, start again, stop in reverse.

use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::future::{select_all, try_join_all};
use tokio::time::{Instant, sleep_until};

use crate::child::{Process, Spec};
use crate::error::{Attempt as _, Error};
use crate::follow::Follower;
use crate::probe;
use crate::signals::Signals;
use crate::terminal::{human, say};

/// A child that ran this long was well: its next death is counted as the first.
const STEADY_AFTER: Duration = Duration::from_secs(60);
/// How often in a row a child is started again.
const DEATHS_MAX: u32 = 6;
/// The longest pause before it is started again; the first is one second, and each is twice the last.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How a child is asked whether it serves.
#[derive(Debug, Clone)]
pub(crate) enum Readiness {
    /// By logging in on this port.
    Postgres(u16),
    /// By asking for the brokers on this port.
    Kafka(u16),
    /// By a GET of this URL, which must be answered with 200.
    Http(reqwest::Client, String),
}

/// One child and what became of it.
#[derive(Debug)]
pub(crate) struct Member {
    spec: Spec,
    readiness: Readiness,
    ready_within: Duration,
    follower: Option<Follower>,
    process: Option<Process>,
    started: Instant,
    /// Deaths in a row.
    deaths: u32,
    /// Whether it was started again and has not answered since.
    coming_back: bool,
}

/// The children, in the order in which they were started. Dropping it kills what was not stopped.
#[derive(Debug, Default)]
pub(crate) struct Stack {
    members: Vec<Member>,
}

impl Readiness {
    async fn answers(&self) -> bool {
        match self {
            Self::Postgres(port) => probe::postgres_answers(*port).await,
            Self::Kafka(port) => probe::kafka_answers(*port).await,
            Self::Http(client, url) => client.get(url).send().await.is_ok_and(|answer| answer.status().as_u16() == 200),
        }
    }
}

impl Member {
    /// A child that is not started yet.
    pub(crate) fn new(spec: Spec, readiness: Readiness, ready_within: Duration) -> Self {
        let (process, follower) = (None, None);
        Self {
            spec,
            readiness,
            ready_within,
            follower,
            process,
            started: Instant::now(),
            deaths: 0,
            coming_back: false,
        }
    }

    /// Has its warnings and errors shown on the terminal.
    pub(crate) fn followed(mut self) -> Self {
        self.follower = Some(Follower::at_end_of(self.spec.name, &self.spec.log));
        self
    }

    fn spawn(&mut self) -> Result<(), Error> {
        self.process = Some(self.spec.spawn()?);
        self.started = Instant::now();
        Ok(())
    }

    async fn ready(&mut self) -> Result<(), Error> {
        let readiness = self.readiness.clone();
        match &mut self.process {
            Some(process) => process.ready(self.ready_within, async || readiness.answers().await).await,
            None => Ok(()),
        }
    }

    /// Waits for the next thing to happen to this child, and deals with it: its death, the end of the pause
    /// after that, its return. Dropping the future loses nothing.
    async fn turn(&mut self) -> Result<(), Error> {
        let Some(process) = &mut self.process else {
            sleep_until(self.started + self.pause()).await;
            self.coming_back = true;
            return self.spawn();
        };
        if !self.coming_back {
            let status = process.ended().await?;
            return self.died(status);
        }
        let readiness = self.readiness.clone();
        match process.ready(self.ready_within, async || readiness.answers().await).await {
            Ok(()) => say(format!("{} is back", self.spec.name)),
            Err(Error::Died { status, .. }) => return self.died(status),
            Err(Error::NotReady { within, .. }) => {
                say(format!("{} has not become ready within {}", self.spec.name, human(within)));
            }
            Err(other) => return Err(other),
        }
        self.coming_back = false;
        Ok(())
    }

    fn died(&mut self, status: ExitStatus) -> Result<(), Error> {
        let (name, log) = (self.spec.name, self.spec.log.clone());
        self.deaths = if self.started.elapsed() >= STEADY_AFTER { 1 } else { self.deaths + 1 };
        say(format!("{name} ended ({status}); the end of {}:\n{}", log.display(), self.spec.tail()));
        if self.deaths > DEATHS_MAX {
            return Err(Error::KeepsDying { name, times: self.deaths, log });
        }
        (self.process, self.started) = (None, Instant::now());
        say(format!("starting {name} again in {}", human(self.pause())));
        Ok(())
    }

    fn pause(&self) -> Duration {
        pause_after(self.deaths)
    }

    async fn stop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let (took, obeyed) = process.stop().await;
        let how = if obeyed { "stopped" } else { "did not stop, killed" };
        say(format!("{} {how} ({})", self.spec.name, human(took)));
        self.process = None;
    }
}

fn pause_after(deaths: u32) -> Duration {
    Duration::from_secs(1 << deaths.saturating_sub(1).min(16)).min(PAUSE_MAX)
}

impl Stack {
    /// Whether nothing was started.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Starts these together, and returns when all of them answer.
    ///
    /// # Errors
    /// When one cannot be started, ends, or does not answer in time. Those that run are part of the stack
    /// all the same, so that it can stop them.
    pub(crate) async fn start(&mut self, members: Vec<Member>) -> Result<(), Error> {
        let first = self.members.len();
        for mut member in members {
            if let Some(logs) = member.spec.log.parent() {
                fs::create_dir_all(logs).attempt(|| format!("create {}", logs.display()))?;
            }
            member.spawn()?;
            self.members.push(member);
        }
        let started = self.members.iter_mut().skip(first);
        try_join_all(started.map(Member::ready)).await.map(drop)
    }

    /// Watches over the children, and starts again what dies. Only returns when one keeps dying.
    pub(crate) async fn watch(&mut self) -> Error {
        loop {
            let turns = self.members.iter_mut().map(|member| Box::pin(member.turn()));
            if let (Err(error), ..) = select_all(turns).await {
                return error;
            }
        }
    }

    /// Stops everything, last started first. A signal that arrives meanwhile kills what is left.
    pub(crate) async fn stop(&mut self, signals: &mut Signals) {
        let in_order = async {
            for member in self.members.iter_mut().rev() {
                member.stop().await;
            }
        };
        tokio::select! {
            () = in_order => {}
            () = signals.next() => say("asked again: killing what is left"),
        }
        // Drop does the killing.
        self.members.clear();
    }

    /// Stops everything without a word, for a run whose last word is the command's own.
    pub(crate) async fn stop_quietly(&mut self, signals: &mut Signals) {
        let in_order = async {
            for member in self.members.iter_mut().rev() {
                if let Some(process) = &mut member.process {
                    process.stop().await;
                }
                member.process = None;
            }
        };
        tokio::select! {
            () = in_order => {}
            () = signals.next() => {}
        }
        self.members.clear();
    }

    /// The process ids, by name.
    pub(crate) fn pids(&self) -> impl Iterator<Item = (&'static str, i32)> {
        self.members.iter().filter_map(|member| Some((member.spec.name, member.process.as_ref()?.pid())))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            process.kill();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let seconds: Vec<u64> = (1..=7).map(|deaths| pause_after(deaths).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
    }
}
