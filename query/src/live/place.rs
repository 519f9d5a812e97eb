//! Where a change stands, and the id by which a client resumes after it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

/// Longest id that is read, in bytes.
pub const ID_BYTES_MAX: usize = 8_192;

/// A place in a partition's changes: the record that made the event applicable, and how many it made applicable before.
///
/// The record's own position would not do: an event that waited is applied long after the records behind it, and a
/// client that has those would never ask for it. The record that ends the waiting is the same one on every node that
/// reads the topic, however it cuts its batches, so a place means the same change everywhere. Exceptions, where a
/// client that changes nodes may be told `reset`, or an event twice or not at all: events that no record made applicable
/// (a newer program, an operator or the event log did: they are put behind the last record that is applied then), and
/// orders whose events are in two partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The record's offset; -1 before the first record.
    pub offset: i64,
    /// Zero is the record's own event.
    pub n: i64,
}

impl Place {
    /// Before every change.
    pub const START: Self = Self { offset: -1, n: 0 };

    /// The first place that a record can have.
    pub fn of_record(offset: i64) -> Self {
        Self { offset, n: 0 }
    }

    /// The next place.
    #[must_use]
    pub fn after(self) -> Self {
        Self { n: self.n.saturating_add(1), ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.n {
            0 => write!(f, "{}", self.offset),
            n => write!(f, "{}.{n}", self.offset),
        }
    }
}

impl FromStr for Place {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (offset, n) = text.split_once('.').unwrap_or((text, "0"));
        let place = Self { offset: number(offset)?, n: number(n)? };
        if place < Self::START || place.n < 0 { Err(NotAnId) } else { Ok(place) }
    }
}

/// A change that was there, which shows that the places are about the same topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// Where.
    pub partition: i32,
    /// Where.
    pub place: Place,
    /// The id of the event.
    pub event_id: Uuid,
}

/// How far a client is. As text: `0:12.1,3:7;0:12:<event id>`, the next place of each partition, then the place and id
/// of the last change. A partition that is not named is at its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The next place to tell, by partition.
    pub next: BTreeMap<i32, Place>,
    /// The last change; none when there was none yet.
    pub last: Option<Anchor>,
}

impl Cursor {
    /// The next place to tell of a partition.
    pub fn next_of(&self, partition: i32) -> Place {
        self.next.get(&partition).copied().unwrap_or(Place::START)
    }

    /// Moves past a change.
    pub fn pass(&mut self, change: Anchor) {
        self.next.insert(change.partition, change.place.after());
        self.last = Some(change);
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, place)) in self.next.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{partition}:{place}")?;
        }
        f.write_str(";")?;
        match &self.last {
            Some(Anchor { partition, place, event_id }) => write!(f, "{partition}:{place}:{event_id}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Cursor {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() > ID_BYTES_MAX {
            return Err(NotAnId);
        }
        let (places, last) = text.split_once(';').ok_or(NotAnId)?;
        let mut next = BTreeMap::new();
        for place in places.split(',').filter(|place| !place.is_empty()) {
            let (partition, place) = place.split_once(':').ok_or(NotAnId)?;
            next.insert(partition_of(partition)?, place.parse()?);
        }
        if last.is_empty() {
            return Ok(Self { next, last: None });
        }
        let (partition, rest) = last.split_once(':').ok_or(NotAnId)?;
        let (place, event_id) = rest.split_once(':').ok_or(NotAnId)?;
        let event_id = event_id.parse().map_err(|_error| NotAnId)?;
        Ok(Self { next, last: Some(Anchor { partition: partition_of(partition)?, place: place.parse()?, event_id }) })
    }
}

/// Not an id that a stream gave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an id of this stream")]
pub struct NotAnId;

fn number(text: &str) -> Result<i64, NotAnId> {
    text.parse().map_err(|_error| NotAnId)
}

fn partition_of(text: &str) -> Result<i32, NotAnId> {
    text.parse().ok().filter(|partition| *partition >= 0).ok_or(NotAnId)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_was_written() {
        let mut cursor = Cursor::default();
        for text in [";", "0:12,1:-1.1;"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        cursor.next.insert(1, Place::of_record(7));
        cursor.pass(Anchor { partition: 0, place: Place::of_record(12), event_id: Uuid::nil() });
        assert_eq!(cursor.to_string(), format!("0:12.1,1:7;0:12:{}", Uuid::nil()));
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "x", "0;", "0:x;", "-1:1;", "0:1.-1;", "0:-2;", "0:1;0:1", "0:1;0:1:x", "0:1;:1:"] {
            assert_eq!(text.parse::<Cursor>(), Err(NotAnId), "{text}");
        }
    }
}
