//! What the person at the terminal sees.

use std::error::Error as StdError;
use std::time::Duration;

/// One line on the terminal.
pub(crate) fn say(line: impl std::fmt::Display) {
    println!("{line}");
}

/// An error with all its causes, on one line where they are one line each.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// A duration as a person reads it: `850 ms`, `3.2 s`.
pub(crate) fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(human(Duration::from_millis(850)), "850 ms");
        assert_eq!(human(Duration::from_millis(3_240)), "3.2 s");
    }
}
