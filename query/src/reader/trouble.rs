//! What keeps the topic, or a part of it, from being read, while the reader goes on trying by itself.

use std::time::Duration;

use chassis::kafka;
use chassis::telemetry::ErrorChain;

use super::{NotReadable, TopicReader};

/// How long a partition may fail before that is told: a change of its leader takes a moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why the topic, or a part of it, cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Its kind, by which one trouble is told from another.
    pub kind: &'static str,
    /// What an operator should know.
    pub why: String,
    /// Whether nothing at all can be read.
    pub blind: bool,
}

/// That the brokers do not answer our questions.
#[derive(Debug)]
pub(super) struct Away {
    why: String,
}

impl NotReadable {
    /// As a trouble.
    pub fn trouble(&self) -> Trouble {
        let kind = match self {
            Self::Missing { .. } => "missing",
            Self::Unfit(_) => "unfit",
            Self::Kafka(_) => "unreachable",
            Self::Replaced { .. } => "replaced",
        };
        Trouble { kind, why: ErrorChain(self).to_string(), blind: true }
    }
}

impl TopicReader {
    /// What is wrong while it reads, if anything is.
    pub fn trouble(&self) -> Option<Trouble> {
        let consumer = self.consumer.as_ref()?;
        if let Some(outage) = consumer.outage() {
            let why = format!("the brokers do not answer: {}", outage.why);
            return Some(Trouble { kind: "unreachable", why, blind: true });
        }
        if let Some(Away { why }) = &self.away {
            return Some(Trouble { kind: "unreachable", why: why.clone(), blind: true });
        }
        if let Some(error @ kafka::Error::Unreadable { .. }) = consumer.trouble(PATIENCE) {
            let why = ErrorChain(&error).to_string();
            return Some(Trouble { kind: "unreadable", why, blind: false });
        }
        let drift = self.drift.as_ref()?;
        Some(Trouble { kind: "unfit", why: drift.to_string(), blind: false })
    }

    /// Whether the topic has lost a property that it must have.
    pub fn is_unfit(&self) -> bool {
        self.drift.is_some()
    }

    pub(super) fn do_not_answer(&mut self, error: &kafka::Error) {
        let why = || format!("the brokers do not answer: {}", ErrorChain(error));
        self.away.get_or_insert_with(|| Away { why: why() });
    }
}
