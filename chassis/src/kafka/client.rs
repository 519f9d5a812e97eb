//! What all clients share: settings, blocking calls with a deadline, and a drop that blocks nobody.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

use super::{Brokers, Error};

/// How long one question to the cluster may take.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest rest between two attempts to connect: a broker that is back is used after this long.
const RECONNECT_REST_MAX_MS: &str = "250";
/// How long one attempt to connect may take. A host that drops packets is tried again after it; the default is 30 s.
const CONNECT_TIMEOUT_MS: &str = "3000";

/// Settings of every client.
pub(super) fn config(brokers: &Brokers, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &brokers.0)
        .set("client.id", client_id)
        // "localhost" resolves to ::1 first, where a broker on 127.0.0.1 does not listen.
        .set("broker.address.family", "v4")
        // Nobody reads the statistics; producing them costs a JSON document per interval.
        .set("statistics.interval.ms", "0")
        // A broker that is back is used at once rather than after the default ten seconds.
        .set("reconnect.backoff.ms", "50")
        .set("reconnect.backoff.max.ms", RECONNECT_REST_MAX_MS)
        .set("socket.connection.setup.timeout.ms", CONNECT_TIMEOUT_MS)
        // A topic that does not exist is told after this long; the default is half a minute.
        .set("topic.metadata.propagation.max.ms", "5000")
        .set("socket.nagle.disable", "true")
        // An idle connection being closed by the broker is no event worth a log line.
        .set("log.connection.close", "false");
    config
}

/// The log output of a client. What an operator has to know reaches the caller as an [`Error`] or an
/// [`Outage`](super::consumer::Outage), who says it once. The library says it again for each connection and each attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words;

impl ClientContext for Words {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(facility, "librdkafka: {message}");
            }
            RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning
            | RDKafkaLogLevel::Notice
            | RDKafkaLogLevel::Info
            | RDKafkaLogLevel::Debug => tracing::debug!(facility, "librdkafka: {message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "librdkafka: {reason}");
    }
}

impl ConsumerContext for Words {}

/// Runs a blocking call of the library on a blocking thread and waits for it with a deadline.
///
/// The call should have its own, shorter deadline: a thread cannot be cancelled.
pub(super) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    deadline: Duration,
    call: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(call)).await {
        Ok(Ok(result)) => result,
        Ok(Err(source)) => Err(Error::Thread { doing, source }),
        Err(_elapsed) => Err(Error::Deadline { doing, waited_ms: deadline.as_millis() }),
    }
}

/// A client that is dropped on a thread of its own.
///
/// Closing a librdkafka client joins its threads, which takes up to seconds when a broker is gone; on an
/// async thread that would stall every task beside it.
pub(super) struct OffThread<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> OffThread<T> {
    pub(super) fn new(client: T) -> Self {
        Self(Some(client))
    }
}

impl<T: Send + 'static> Deref for OffThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(client) => client,
            None => unreachable!("the client is taken out in drop only"),
        }
    }
}

impl<T: Send + 'static> Drop for OffThread<T> {
    fn drop(&mut self) {
        let client = self.0.take();
        let spawned = std::thread::Builder::new().name("kafka-close".to_owned()).spawn(move || drop(client));
        if let Err(error) = spawned {
            // The closure, and the client with it, was dropped here instead: slow, but closed.
            tracing::warn!(%error, "no thread to close a Kafka client on");
        }
    }
}
