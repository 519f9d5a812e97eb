//! Logs through `tracing`, and errors printed with their whole chain.

use std::error::Error as StdError;
use std::fmt;
use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use crate::config::LogFormat;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not of the form `info,chassis=debug`.
    #[error("the log filter {filter:?} cannot be parsed")]
    Filter {
        /// The text given.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Something in this process installed a subscriber before.
    #[error("logging was already set up")]
    AlreadySet(#[source] TryInitError),
}

/// Sends log lines to standard error in `format`, keeping what `filter` lets through.
///
/// # Errors
///
/// When the filter cannot be parsed, or on a second call in one process.
pub fn init(format: LogFormat, filter: &str) -> Result<(), Error> {
    let filter = EnvFilter::try_new(filter).map_err(|source| Error::Filter { filter: filter.to_owned(), source })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Pretty => lines.finish().try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).finish().try_init(),
    }
    .map_err(Error::AlreadySet)
}

/// Prints an error and every source below it in one line: `a: b: c`.
///
/// Our `Display` impls leave their source out, so that a chain never repeats itself; this adapter puts the
/// chain together once, where the error is handled.
pub struct ErrorChain<'a>(pub &'a dyn StdError);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        write_line(f, &said)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Foreign errors often print their source themselves; once is enough.
            if !said.contains(&text) {
                f.write_str(": ")?;
                write_line(f, &text)?;
            }
            said = text;
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn write_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let mut lines = text.lines();
    if let Some(first) = lines.next() {
        f.write_str(first)?;
    }
    for line in lines {
        write!(f, " {}", line.trim())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the shop is closed")]
    struct Closed(#[source] Rain);

    #[derive(Debug, thiserror::Error)]
    #[error("it rains\n  cats and dogs")]
    struct Rain;

    #[test]
    fn a_chain_is_one_line() {
        assert_eq!(ErrorChain(&Closed(Rain)).to_string(), "the shop is closed: it rains cats and dogs");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = init(LogFormat::Json, "no such=level=at=all").unwrap_err();
        assert!(error.to_string().contains("no such"), "{error}");
    }
}
