//! Points in time that every reader of RFC 3339 can read: of the years 0001 to 9999, without leap seconds.

use chrono::{DateTime, Datelike as _, Utc};
use serde::Deserialize;
use thiserror::Error;

/// The first year that is told.
const YEAR_MIN: i32 = 1;
/// The last year that RFC 3339 can write.
const YEAR_MAX: i32 = 9_999;
/// From here on, chrono counts the nanoseconds of a leap second.
const LEAP_NANOS: u32 = 1_000_000_000;

/// A time that RFC 3339 can write. A leap second is the second after it, as it is for every clock that counts seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "DateTime<Utc>")]
pub struct Timestamp(DateTime<Utc>);

/// A time before the year 0001 or after the year 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a time must be in the years 0001 to 9999")]
pub struct OutsideRfc3339;

impl Timestamp {
    /// The time, for whoever computes with it.
    pub fn utc(self) -> DateTime<Utc> {
        self.0
    }
}

impl TryFrom<DateTime<Utc>> for Timestamp {
    type Error = OutsideRfc3339;

    fn try_from(at: DateTime<Utc>) -> Result<Self, OutsideRfc3339> {
        let at = match at.timestamp_subsec_nanos().checked_sub(LEAP_NANOS) {
            Some(nanos) => DateTime::from_timestamp(at.timestamp().saturating_add(1), nanos).ok_or(OutsideRfc3339)?,
            None => at,
        };
        if (YEAR_MIN..=YEAR_MAX).contains(&at.year()) { Ok(Self(at)) } else { Err(OutsideRfc3339) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        let read: Result<Timestamp, _> = serde_json::from_value(text.into());
        read.map(|at| at.utc().to_rfc3339()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_written_is_not_read() {
        for text in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2016-12-31T23:59:59Z"] {
            assert_eq!(read(text).unwrap().len(), text.len() + "+00:00".len() - 1, "{text}");
        }
        for text in [
            "+10000-01-01T00:00:00Z",
            "-262143-01-01T00:00:00Z",
            "0000-12-31T23:59:59Z",
            "-0001-01-01T00:00:00Z",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59-00:01",
            "0001-01-01T00:00:00+00:01",
        ] {
            assert_eq!(read(text), Err(OutsideRfc3339.to_string()), "{text}");
        }
    }

    #[test]
    fn a_leap_second_is_the_second_after_it() {
        assert_eq!(read("2016-12-31T23:59:60Z").unwrap(), "2017-01-01T00:00:00+00:00");
        assert_eq!(read("2016-12-31T23:59:60.5Z").unwrap(), "2017-01-01T00:00:00.500+00:00");
    }
}
