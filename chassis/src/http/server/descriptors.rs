//! The descriptors that connections need.

use std::sync::Once;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors for everything else: databases, brokers, files, the process itself.
const OTHERS: u64 = 256;

/// Raises the process's limit of open files to what `connections_max` connections need, as far as the system lets it.
///
/// Says so once when that is not enough: without descriptors, databases and brokers are out of reach as well.
pub(super) fn provide(connections_max: usize) {
    static CHECKED: Once = Once::new();
    CHECKED.call_once(|| {
        let needed = OTHERS.saturating_add(connections_max as u64);
        match raise(needed) {
            Ok(limit) if limit < needed => tracing::warn!(
                limit,
                needed,
                "HTTP_CONNECTIONS_MAX is {connections_max}, and the process may open {limit} files: raise \
                 RLIMIT_NOFILE (ulimit -n, LimitNOFILE=) to {needed}, or allow fewer connections"
            ),
            Ok(_enough) => {}
            Err(error) => tracing::warn!(%error, "the limit of open files cannot be read or raised"),
        }
    });
}

/// The limit after raising it.
fn raise(needed: u64) -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(soft);
    }
    let raised = needed.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, raised, hard)?;
    Ok(raised)
}
