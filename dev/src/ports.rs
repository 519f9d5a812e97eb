//! Which TCP ports of the loopback interface are free.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::Error;

/// How many ports after the preferred one are tried.
const NEXT_PORTS_MAX: u16 = 100;
/// Ports that nobody asked for come from here: below the range that the kernel gives to outgoing
/// connections, so that none of those takes the port before the server has opened it.
const SPARE_FIRST: u16 = 20_000;
const SPARE_COUNT: u16 = 10_000;

/// Whether a server could listen on this address now.
pub(crate) fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// Whether a server could listen on this port of 127.0.0.1 now.
pub(crate) fn is_free_here(port: u16) -> bool {
    is_free(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// The first of `width` adjacent free ports.
///
/// `asked` is what the person insists on (0 for any), `preferred` what we would like.
///
/// # Errors
/// When the port that was insisted on, or every port that was tried, is taken.
pub(crate) fn choose(asked: Option<u16>, preferred: u16, width: u16, what: &'static str) -> Result<u16, Error> {
    let fits = |first: &u16| (0..width).all(|offset| first.checked_add(offset).is_some_and(is_free_here));
    match asked {
        Some(0) => {
            let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_micros());
            let start = u16::try_from(seed % u32::from(SPARE_COUNT)).unwrap_or(0);
            (0..SPARE_COUNT).map(|step| SPARE_FIRST + (start + step) % SPARE_COUNT).find(fits)
        }
        Some(port) => Some(port).filter(fits),
        None => (preferred..=preferred.saturating_add(NEXT_PORTS_MAX)).find(fits),
    }
    .ok_or(Error::PortTaken { port: asked.unwrap_or(preferred), what, advice: "name another one" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_passed_over_unless_it_was_insisted_on() {
        let first = choose(Some(0), 0, 2, "a test").unwrap();
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(choose(None, first, 1, "a test").unwrap() > first);
        assert!(matches!(choose(Some(first), 0, 1, "a test"), Err(Error::PortTaken { .. })));
    }

    #[test]
    fn a_pair_needs_both_ports() {
        let first = choose(Some(0), 0, 2, "a test").unwrap();
        let _second = TcpListener::bind((Ipv4Addr::LOCALHOST, first + 1)).unwrap();
        assert!(choose(Some(first), 0, 2, "a test").is_err());
        assert!(choose(Some(first), 0, 1, "a test").is_ok());
    }
}
