//! How far a partition is applied, and the proof that the topic is still the one it was applied from (rules R8).

use crate::intake::{Digest, Incoming};

/// A record that was there: its offset and the digest of its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Where.
    pub offset: i64,
    /// What.
    pub digest: Digest,
}

/// How far one partition is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which partition.
    pub partition: i32,
    /// The last applied record. The next one to apply is at the offset after it.
    pub last: Anchor,
    /// A record that was seen in this very topic, at or before `last`, when the topic was last verified.
    ///
    /// A topic that is deleted, made anew and filled past our position within a moment shows us its own records:
    /// then `last` is one of them and proves nothing. This one was there before.
    pub proven: Anchor,
}

/// What a look at the topic has shown: it is still the one that this record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Where the record is.
    pub partition: i32,
    /// The last that was applied when the look began.
    pub anchor: Anchor,
}

impl Checkpoint {
    /// The offset of the first record that is not applied.
    pub fn next_offset(&self) -> i64 {
        self.last.offset + 1
    }
}

/// The checkpoints of a store, and what they are about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoints {
    /// The cluster and the topic; none before the first record.
    pub of: Option<Origin>,
    /// One per partition that has applied records, by partition.
    pub partitions: Vec<Checkpoint>,
}

/// Which log the offsets are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The cluster's id; empty when the broker does not tell.
    pub cluster_id: String,
    /// The topic's name.
    pub topic: String,
}

impl Checkpoints {
    /// As they are once these records of `topic` are applied.
    #[must_use]
    pub fn after(&self, incoming: &[Incoming], topic: &str) -> Self {
        let mut after = self.clone();
        // Records that come without a survey, as in a test, are of a cluster that is not known.
        after.of.get_or_insert_with(|| Origin { cluster_id: String::new(), topic: topic.to_owned() });
        for Incoming { record, digest, .. } in incoming {
            let last = Anchor { offset: record.position.offset, digest: *digest };
            let partition = record.position.partition;
            match after.partitions.binary_search_by_key(&partition, |checkpoint| checkpoint.partition) {
                Ok(at) => after.partitions[at].last = last,
                Err(at) => after.partitions.insert(at, Checkpoint { partition, last, proven: last }),
            }
        }
        after
    }

    /// The topic was seen to be the same in this partition, so what was applied before that look came from it too.
    pub fn prove(&mut self, Proof { partition, anchor }: Proof) {
        for checkpoint in &mut self.partitions {
            if checkpoint.partition == partition {
                checkpoint.proven = anchor;
            }
        }
    }

    /// The topic was just seen to be the same in every partition.
    pub fn prove_all(&mut self) {
        for checkpoint in &mut self.partitions {
            checkpoint.proven = checkpoint.last;
        }
    }
}
