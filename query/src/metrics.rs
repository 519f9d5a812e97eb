//! The metrics of this service: every name and what it means, in one place.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Events behind the end of the topic, by partition; NaN while that is not known.
pub const LAG_EVENTS: &str = "orders_projection_lag_events";
/// How long the oldest event that is not applied has waited, by this process's own clock; zero when caught up, NaN while
/// that is not known.
pub const LAG_SECONDS: &str = "orders_projection_lag_seconds";
/// How long ago the ends of the partitions were last known.
pub const ENDS_AGE_SECONDS: &str = "orders_projection_ends_age_seconds";
/// How long ago the brokers last answered the projector; NaN on a node that does not project.
pub const READ_AGE_SECONDS: &str = "orders_projection_read_age_seconds";
/// Events applied.
pub const APPLIED: &str = "orders_projection_applied_total";
/// Events that were applied, or waited, already.
pub const DUPLICATES: &str = "orders_projection_duplicates_total";
/// Events that wait.
pub const PARKED: &str = "orders_projection_parked";
/// Events that contradict another one.
pub const FORKS: &str = "orders_projection_forks_total";
/// Records set aside.
pub const DEAD_LETTERS: &str = "orders_dead_letters_total";
/// Age of the event that waits longest; zero when none does.
pub const PARKED_AGE_SECONDS: &str = "orders_projection_parked_oldest_age_seconds";
/// Dead letters that are kept.
pub const LETTERS_KEPT: &str = "orders_dead_letters_kept";
/// Age of the oldest of them; zero when there is none.
pub const LETTERS_AGE_SECONDS: &str = "orders_dead_letters_oldest_age_seconds";
/// Records in a step.
pub const BATCH_RECORDS: &str = "orders_projection_batch_records";
/// How long a step takes.
pub const STEP_SECONDS: &str = "orders_projection_step_seconds";
/// Steps that failed and are tried again.
pub const STEP_FAILURES: &str = "orders_projection_step_failures_total";
/// How often the topic turned out not to be the one that was applied.
pub const RESTARTS_FROM_ZERO: &str = "orders_projection_restarts_from_zero_total";
/// One while the topic can be read, zero while it or a part of it cannot, NaN while that is not known.
pub const TOPIC_READABLE: &str = "orders_projection_topic_readable";
/// Streams that were closed because the client took nothing.
pub const STREAMS_CUT: &str = "orders_streams_cut_total";
/// Clients that were told `reset`.
pub const STREAM_RESETS: &str = "orders_stream_resets_total";

/// Operators' wishes that were carried out.
pub const INTERVENTIONS: &str = "orders_projection_interventions_total";

/// Events that were taken from the event log.
pub const HEALED: &str = "orders_projection_healed_total";
/// Looks for orders that miss events that failed.
pub const HEAL_FAILURES: &str = "orders_projection_heal_failures_total";

/// One while this process builds another generation.
pub const REBUILDING: &str = "orders_rebuild_running";
/// Rebuilds that did not come to their end.
pub const REBUILD_FAILURES: &str = "orders_rebuild_failures_total";
/// One on the node that projects, zero on the others.
pub const OWNER: &str = "orders_projection_owner";

/// Tells the recorder what the metrics mean, and shows the counters from the start: a counter that appears with its
/// first event hides that event from a rate.
pub fn describe() {
    describe_gauge!(LAG_EVENTS, Unit::Count, "events behind the end of the topic, NaN while unknown");
    describe_gauge!(LAG_SECONDS, Unit::Seconds, "how long the oldest event not applied has waited, NaN while unknown");
    describe_gauge!(ENDS_AGE_SECONDS, Unit::Seconds, "how long ago the ends of the partitions were last known");
    describe_gauge!(READ_AGE_SECONDS, Unit::Seconds, "how long ago the brokers last answered the projector");
    describe_gauge!(PARKED, Unit::Count, "events that wait for another event or for a newer program");
    describe_gauge!(TOPIC_READABLE, Unit::Count, "one while the topic can be read");
    describe_gauge!(PARKED_AGE_SECONDS, Unit::Seconds, "age of the event that waits longest");
    describe_gauge!(LETTERS_KEPT, Unit::Count, "dead letters that are kept");
    describe_gauge!(LETTERS_AGE_SECONDS, Unit::Seconds, "age of the oldest dead letter");
    describe_gauge!(REBUILDING, Unit::Count, "one while this process builds another generation");
    describe_gauge!(OWNER, Unit::Count, "one on the node that projects");
    describe_histogram!(BATCH_RECORDS, Unit::Count, "records in a step");
    describe_histogram!(STEP_SECONDS, Unit::Seconds, "how long a step takes");
    let counters = [
        (APPLIED, "events applied"),
        (DUPLICATES, "events that were known already"),
        (FORKS, "events that contradict another event of the same version"),
        (DEAD_LETTERS, "records that can never have come from the relay"),
        (STEP_FAILURES, "steps that failed and are tried again"),
        (REBUILD_FAILURES, "rebuilds that did not come to their end"),
        (STREAMS_CUT, "streams that were closed because the client took nothing"),
        (STREAM_RESETS, "streams that could not go on from the client's id"),
        (INTERVENTIONS, "operators' wishes that were carried out"),
        (HEALED, "missing events that were taken from the event log"),
        (HEAL_FAILURES, "looks for orders that miss events that failed"),
        (RESTARTS_FROM_ZERO, "how often the topic turned out not to be the one that was applied"),
    ];
    for (name, meaning) in counters {
        describe_counter!(name, Unit::Count, meaning);
        metrics::counter!(name).increment(0);
    }
}
