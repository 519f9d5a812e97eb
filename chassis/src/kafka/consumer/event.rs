//! The events that a consumer's queues hold, sorted by whom they concern.
//!
//! Each partition has a queue of its own, so an error names its partition. The client's queue holds the rest: news of
//! connections, which the client repairs by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::{FutureExt as _, StreamExt as _};
use rdkafka::consumer::StreamConsumer;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::BorrowedMessage;

use super::super::client::Words;
use super::Message;

type Received<'a> = Result<BorrowedMessage<'a>, KafkaError>;

/// One event, without the library's lifetime.
#[derive(Debug)]
pub(super) enum Event {
    /// A record.
    Message(Message),
    /// The partition was read to its end.
    End(i32),
    /// The partition cannot be read now.
    Partition(i32, KafkaError),
    /// All brokers are unreachable.
    Away(KafkaError),
    /// News of one connection. The client connects again by itself.
    Connection,
    /// The consumer cannot go on, or it is not known which partition cannot.
    Failure(KafkaError),
}

/// The queues of a consumer.
pub(super) struct Queues {
    partitions: Vec<(i32, StreamPartitionQueue<Words>)>,
    client: Arc<StreamConsumer<Words>>,
    /// The queue that is emptied first.
    turn: AtomicUsize,
}

impl Queues {
    /// Gives each of the partitions a queue of its own, and tells what had come to the client's queue before. Call it right
    /// after `assign`.
    pub(super) fn split(
        client: Arc<StreamConsumer<Words>>,
        topic: &str,
        partitions: impl Iterator<Item = i32>,
    ) -> (Self, VecDeque<Event>) {
        let queue = |partition| Some((partition, client.split_partition_queue(topic, partition)?));
        let partitions = partitions.filter_map(queue).collect();
        let mut early = VecDeque::new();
        while let Some(received) = client.recv().now_or_never() {
            early.push_back(of_client(received));
        }
        (Self { partitions, client, turn: AtomicUsize::new(0) }, early)
    }

    pub(super) fn client(&self) -> &StreamConsumer<Words> {
        &self.client
    }

    /// Waits for an event of any queue. Dropping this future loses nothing.
    pub(super) async fn next(&self) -> Event {
        let mut client = self.client.stream();
        let mut partitions: Vec<_> = self.partitions.iter().map(|(id, queue)| (*id, queue.stream())).collect();
        std::future::poll_fn(move |context| {
            // The client's queue comes last: what was fetched before an outage does not end it.
            for (partition, stream) in &mut partitions {
                if let Poll::Ready(Some(received)) = stream.poll_next_unpin(context) {
                    return Poll::Ready(of_partition(*partition, received));
                }
            }
            match client.poll_next_unpin(context) {
                Poll::Ready(Some(received)) => Poll::Ready(of_client(received)),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Takes the events that are there, without waiting, while `take` answers true.
    pub(super) fn drain(&self, mut take: impl FnMut(Event) -> bool) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.partitions.len());
        let (before, from) = self.partitions.split_at(turn.unwrap_or(0));
        for (partition, queue) in from.iter().chain(before) {
            let mut stream = queue.stream();
            while let Some(Some(received)) = stream.next().now_or_never() {
                if !take(of_partition(*partition, received)) {
                    return;
                }
            }
        }
        while let Some(received) = self.client.recv().now_or_never() {
            if !take(of_client(received)) {
                return;
            }
        }
    }
}

fn of_partition(partition: i32, received: Received<'_>) -> Event {
    match received {
        Ok(message) => Event::Message(Message::from(&message)),
        Err(KafkaError::PartitionEOF(_)) => Event::End(partition),
        Err(error @ KafkaError::MessageConsumptionFatal(_)) => Event::Failure(error),
        Err(error) => Event::Partition(partition, error),
    }
}

fn of_client(received: Received<'_>) -> Event {
    match received {
        Ok(message) => Event::Message(Message::from(&message)),
        Err(KafkaError::PartitionEOF(partition)) => Event::End(partition),
        Err(error) if is_away(&error) => Event::Away(error),
        Err(error) if is_of_connection(&error) => Event::Connection,
        Err(error) => Event::Failure(error),
    }
}

/// Whether no broker can be reached, or none that lets us in.
fn is_away(error: &KafkaError) -> bool {
    let code = error.rdkafka_error_code();
    matches!(code, Some(Code::AllBrokersDown | Code::Authentication | Code::SaslAuthenticationFailed))
}

/// Whether an error is about a connection to some broker. The client connects again by itself.
pub(super) fn is_of_connection(error: &KafkaError) -> bool {
    use Code::{
        AllBrokersDown, BrokerDestroy, BrokerTransportFailure, CriticalSystemResource, NodeUpdate, OperationTimedOut,
        QueueFull, Resolve, SSL, TimedOutQueue, UnsupportedFeature,
    };
    !matches!(error, KafkaError::MessageConsumptionFatal(_))
        && matches!(
            error.rdkafka_error_code(),
            Some(
                AllBrokersDown
                    | BrokerDestroy
                    | BrokerTransportFailure
                    | CriticalSystemResource
                    | NodeUpdate
                    | OperationTimedOut
                    | QueueFull
                    | Resolve
                    | SSL
                    | TimedOutQueue
                    | UnsupportedFeature
            )
        )
}
