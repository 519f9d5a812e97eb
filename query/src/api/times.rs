//! Times and days in parameters and answers: those of the years 0001 to 9999, which every reader of RFC 3339 knows.

use chrono::{DateTime, Datelike as _, NaiveDate, NaiveTime, Utc};
use serde::Deserialize;

/// A day of a parameter.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "NaiveDate")]
pub(super) struct Day(NaiveDate);

impl TryFrom<NaiveDate> for Day {
    type Error = &'static str;

    fn try_from(day: NaiveDate) -> Result<Self, Self::Error> {
        if (first().year()..=last().year()).contains(&day.year()) {
            Ok(Self(day))
        } else {
            Err("a day must be in the years 0001 to 9999")
        }
    }
}

impl Day {
    /// Days since 1970-01-01.
    pub(super) fn since_epoch(self) -> i64 {
        i64::from(self.0.to_epoch_days())
    }
}

fn first() -> NaiveDate {
    NaiveDate::from_ymd_opt(1, 1, 1).unwrap_or(NaiveDate::MIN)
}

fn last() -> NaiveDate {
    NaiveDate::from_ymd_opt(9_999, 12, 31).unwrap_or(NaiveDate::MAX)
}

/// A stored time as it is told. Rows of earlier releases may hold a time that cannot be written: then the nearest one.
pub(crate) fn told(micros: i64) -> DateTime<Utc> {
    let at = DateTime::from_timestamp_micros(micros);
    let at = at.unwrap_or(if micros < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC });
    let earliest = first().and_time(NaiveTime::MIN).and_utc();
    let latest = last().and_time(NaiveTime::MIN).and_utc() + chrono::TimeDelta::microseconds(86_399_999_999);
    at.clamp(earliest, latest)
}

/// The same for a stored day, in days since 1970-01-01.
pub(super) fn told_day(day: i64) -> NaiveDate {
    let found = i32::try_from(day).ok().and_then(NaiveDate::from_epoch_days);
    found.unwrap_or(if day < 0 { NaiveDate::MIN } else { NaiveDate::MAX }).clamp(first(), last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_can_be_read() {
        let text = |at: DateTime<Utc>| serde_json::to_value(at).unwrap().as_str().unwrap().to_owned();
        assert_eq!(text(told(0)), "1970-01-01T00:00:00Z");
        assert_eq!(text(told(253_402_300_800_000_000)), "9999-12-31T23:59:59.999999Z");
        for far in [i64::MIN, -70_000_000_000_000_000] {
            assert_eq!(text(told(far)), "0001-01-01T00:00:00Z");
        }
        assert_eq!(text(told(i64::MAX)), "9999-12-31T23:59:59.999999Z");
        assert_eq!(told_day(0).to_string(), "1970-01-01");
        assert_eq!(told_day(i64::MIN).to_string(), "0001-01-01");
        assert_eq!(told_day(2_932_897).to_string(), "9999-12-31");
    }
}
