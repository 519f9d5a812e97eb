//! A broker of one test's own, which comes late, dies and comes back.

use std::fs;
use std::time::Duration;

use chassis::kafka::topic::Asker;
use chassis::kafka::{Brokers, TopicSpec};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::process::{Service, Spec};
use super::settings;

/// How long the broker may take from its start, or its death, to its first answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);
/// How long one question to it may take.
const QUESTION: Duration = Duration::from_millis(250);

/// A broker that is started when it is told to. Its directory goes with it.
#[derive(Debug)]
pub(crate) struct Broker {
    port: u16,
    directory: tempfile::TempDir,
    keeper: Service,
}

impl Broker {
    /// One that is not started.
    pub(crate) fn new() -> Self {
        let (port, directory) = (settings::free_port_pair(), tempfile::tempdir().unwrap());
        let mut envs = vec![("KAFKA_PORT".to_owned(), port.to_string())];
        envs.extend(settings::kafka_libs().map(|libs| ("ORDER_KAFKA_LIBS".to_owned(), libs.display().to_string())));
        let spec = Spec {
            name: "broker".to_owned(),
            program: settings::program("order-dev"),
            args: vec!["--data".to_owned(), directory.path().display().to_string(), "kafka".to_owned()],
            envs,
            port,
            directory: directory.path().to_path_buf(),
        };
        Self { port, directory, keeper: Service::new(spec, reqwest::Client::new()) }
    }

    /// What a client is given.
    pub(crate) fn brokers(&self) -> Brokers {
        Brokers(format!("127.0.0.1:{}", self.port))
    }

    /// Starts it without waiting for anything.
    pub(crate) fn launch(&mut self) {
        self.keeper.launch();
    }

    /// `kill -9`. It stays away until it is told to come back.
    pub(crate) fn kill(&mut self) {
        // Its keeper would start it again at once.
        self.keeper.signal(Signal::SIGSTOP);
        kill(self.pid(), Signal::SIGKILL).unwrap();
    }

    /// Stops it in its tracks: connections stay open, and nothing answers.
    pub(crate) fn freeze(&mut self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&mut self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    fn pid(&self) -> Pid {
        let file = fs::read_to_string(self.directory.path().join("kafka.pid")).unwrap();
        Pid::from_raw(file.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// Lets it come back.
    pub(crate) fn come_back(&mut self) {
        self.keeper.signal(Signal::SIGCONT);
    }

    /// Waits until it tells a new client where the topic ends.
    pub(crate) async fn answers(&self, topic: &TopicSpec) -> Instant {
        let deadline = Instant::now() + ANSWERS_WITHIN;
        loop {
            // A client of its own each time: one that has been refused rests before it tries again.
            let asker = Asker::connect(&self.brokers()).unwrap().within(QUESTION);
            if asker.end_offsets(&topic.name, topic.partitions).await.is_ok() {
                return Instant::now();
            }
            assert!(Instant::now() < deadline, "the broker does not come back");
        }
    }
}
