//! What can keep a rebuild from its end.

use chassis::kafka;
use chassis::telemetry::ErrorChain;
use thiserror::Error;

use crate::generation::Number;
use crate::log::LogError;
use crate::reader::NotReadable;
use crate::{store, verify};

/// Why there is no new generation.
#[derive(Debug, Error)]
pub enum Error {
    /// The topic does not reach back to the first event.
    #[error(
        "the beginning of the topic is gone (partition {partition} begins at offset {low}): a read model from it would be \
         partial; build it from the event log instead, with --from-log"
    )]
    Truncated {
        /// Of which partition.
        partition: i32,
        /// Its first offset.
        low: i64,
    },
    /// The log is to be read and nobody said where it is.
    #[error("the event log is to be read, and QUERY_LOG_URL does not say where it is")]
    NoLog,
    /// Somebody builds already.
    #[error("another process builds generation {number}")]
    Busy {
        /// Which.
        number: Number,
    },
    /// The pointer moved meanwhile.
    #[error("another generation was promoted meanwhile")]
    Overtaken,
    /// An order would be served at an earlier version than it is now.
    #[error(
        "order {order_id} is at version {found} in the new generation and served at version {served}: the source misses \
         events; build from the event log, with --from-log"
    )]
    Regress {
        /// Which order.
        order_id: String,
        /// Its version in the new generation.
        found: u32,
        /// Its version in the one that is served.
        served: u32,
    },
    /// There is nothing to go back to.
    #[error("there is no generation before generation {number}")]
    NoPrevious {
        /// The live one.
        number: Number,
    },
    /// It was told to stop. What is built is kept.
    #[error("stopped; what is built so far is kept, and the next rebuild goes on from it")]
    Stopped,
    /// It is not what its source tells. It is kept for a look, and not promoted.
    #[error("the new generation was not promoted")]
    Verify(#[from] verify::Error),
    /// The topic cannot be read.
    #[error("the topic cannot be read: {0}")]
    Topic(String),
    /// The log cannot be read.
    #[error("the event log cannot be read")]
    Log(#[from] LogError),
    /// The database fails.
    #[error("the read model cannot be read or written")]
    Store(#[from] store::Error),
}

impl From<kafka::Error> for Error {
    fn from(error: kafka::Error) -> Self {
        Self::Topic(ErrorChain(&error).to_string())
    }
}

impl From<NotReadable> for Error {
    fn from(error: NotReadable) -> Self {
        Self::Topic(ErrorChain(&error).to_string())
    }
}
