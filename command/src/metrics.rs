//! Every metric of this service: names in one place, described once. Units are the last word of a name.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Commands of one transaction.
pub(crate) const BATCH_COMMANDS: &str = "orders_batch_commands";
/// Seconds of one batch, from loading what it is about to the proven commit.
pub(crate) const FLUSH_SECONDS: &str = "orders_flush_seconds";
/// Transactions that failed or whose answer was lost.
pub(crate) const TRANSACTIONS_FAILED: &str = "orders_transactions_failed_total";
/// Times that a command went back to its queue because its key or its order was in use.
pub(crate) const COMMANDS_REQUEUED: &str = "orders_commands_requeued_total";
/// Commands that wait in the lanes.
pub(crate) const COMMANDS_QUEUED: &str = "orders_commands_queued";
/// Events that Kafka acknowledged.
pub(crate) const RELAY_PUBLISHED: &str = "orders_relay_published_total";
/// Events of one relay batch.
pub(crate) const RELAY_BATCH_EVENTS: &str = "orders_relay_batch_events";
/// Steps of the relay that failed and were tried again.
pub(crate) const RELAY_FAILURES: &str = "orders_relay_failures_total";
/// One while this process publishes.
pub(crate) const RELAY_OWNER: &str = "orders_relay_owner";
/// Times that the topic was found to have lost events.
pub(crate) const RELAY_TOPIC_LOSSES: &str = "orders_relay_topic_losses_total";
/// Orders of which the topic holds more than the log: nothing is published while there are any.
pub(crate) const RELAY_TOPIC_AHEAD_ORDERS: &str = "orders_relay_topic_ahead_orders";
/// Events in the outbox that are not published.
pub(crate) const OUTBOX_PENDING: &str = "orders_outbox_pending";
/// Age of the oldest of them in seconds, read from the table; zero when there is none.
pub(crate) const OUTBOX_OLDEST_AGE_SECONDS: &str = "orders_outbox_oldest_age_seconds";
/// Seconds since the outbox told both of these. They are NaN while it does not.
pub(crate) const OUTBOX_KNOWN_AGE_SECONDS: &str = "orders_outbox_known_age_seconds";
/// Seconds for which every step of the relay has failed; zero while steps succeed.
pub(crate) const RELAY_FAILING_SECONDS: &str = "orders_relay_failing_seconds";
/// One while a setting of the topic is not as it must be; NaN when that is not known.
pub(crate) const TOPIC_DRIFT: &str = "orders_topic_drift";

/// Expired idempotency keys that were deleted.
pub(crate) const IDEMPOTENCY_KEYS_FORGOTTEN: &str = "orders_idempotency_keys_forgotten_total";
/// Age of the oldest idempotency key in seconds; zero when there is none, not a number when it cannot be read.
pub(crate) const IDEMPOTENCY_OLDEST_AGE_SECONDS: &str = "orders_idempotency_oldest_age_seconds";

/// Tells the exporter what the names mean.
pub fn describe() {
    describe_histogram!(BATCH_COMMANDS, Unit::Count, "Commands of one transaction");
    describe_histogram!(FLUSH_SECONDS, Unit::Seconds, "One batch, from loading what it is about to the proven commit");
    describe_counter!(TRANSACTIONS_FAILED, "Transactions that failed or whose answer was lost");
    describe_counter!(COMMANDS_REQUEUED, "Commands that went back to their queue: key or order in use");
    describe_gauge!(COMMANDS_QUEUED, "Commands that wait in the lanes");
    describe_counter!(RELAY_PUBLISHED, "Events that Kafka acknowledged");
    describe_histogram!(RELAY_BATCH_EVENTS, Unit::Count, "Events of one relay batch");
    describe_counter!(RELAY_FAILURES, "Steps of the relay that failed and were tried again");
    describe_gauge!(RELAY_OWNER, "1 while this process publishes");
    describe_counter!(RELAY_TOPIC_LOSSES, "Times that the topic was found to have lost events");
    describe_gauge!(RELAY_TOPIC_AHEAD_ORDERS, "Orders of which the topic holds more than the log");
    describe_gauge!(OUTBOX_PENDING, "Events in the outbox that are not published");
    describe_gauge!(OUTBOX_OLDEST_AGE_SECONDS, Unit::Seconds, "Age of the oldest unpublished event");
    describe_gauge!(OUTBOX_KNOWN_AGE_SECONDS, Unit::Seconds, "Since the outbox told the two values above");
    describe_gauge!(RELAY_FAILING_SECONDS, Unit::Seconds, "For how long every step of the relay has failed");
    describe_gauge!(TOPIC_DRIFT, "1 while a setting of the topic is not as it must be; NaN when unknown");
    describe_counter!(IDEMPOTENCY_KEYS_FORGOTTEN, "Expired idempotency keys that were deleted");
    describe_gauge!(IDEMPOTENCY_OLDEST_AGE_SECONDS, Unit::Seconds, "Age of the oldest idempotency key");
}
