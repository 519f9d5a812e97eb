//! The limits of the accept loop and of request bodies, each with a name and a default.

use std::time::Duration;

use ipnet::IpNet;

use super::body::Arrivals;
use super::proxies::{ForwardedHeader, Proxies, network};
use super::server::Patience;

/// How long a connection without requests stays open after its peer was told that it ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Limits of one HTTP server.
///
/// The defaults fit an API with small JSON bodies that faces its clients directly (rules R14, R18).
#[derive(Debug, Clone, clap::Args)]
pub struct Limits {
    /// Connections open at once; more wait in the kernel's backlog
    #[arg(long = "http-connections-max", env = "HTTP_CONNECTIONS_MAX", default_value_t = 4096)]
    pub connections_max: usize,

    /// Connections open at once of one peer; more are closed at once
    #[arg(long = "http-connections-per-peer-max", env = "HTTP_CONNECTIONS_PER_PEER_MAX", default_value_t = 1_024)]
    pub connections_per_peer_max: usize,

    /// Addresses and networks of reverse proxies, whose word on the client's address counts, comma separated
    #[arg(
        long = "http-trusted-proxies",
        env = "HTTP_TRUSTED_PROXIES",
        value_name = "NETWORKS",
        value_delimiter = ',',
        value_parser = network
    )]
    pub trusted_proxies: Vec<IpNet>,

    /// Where a trusted proxy writes the client's address
    #[arg(
        long = "http-forwarded-header",
        env = "HTTP_FORWARDED_HEADER",
        value_enum,
        default_value = "x-forwarded-for"
    )]
    pub forwarded_header: ForwardedHeader,

    /// Bytes of a request body
    #[arg(long = "http-body-bytes-max", env = "HTTP_BODY_BYTES_MAX", default_value_t = 65_536)]
    pub body_bytes_max: usize,

    /// Time for a request body to arrive, in milliseconds
    #[arg(long = "http-body-read-timeout-ms", env = "HTTP_BODY_READ_TIMEOUT_MS", default_value_t = 10_000)]
    pub body_read_timeout_ms: u64,

    /// Request bodies on their way at once; one more displaces the one that has waited the longest
    #[arg(long = "http-bodies-max", env = "HTTP_BODIES_MAX", default_value_t = 2_048)]
    pub bodies_max: usize,

    /// Per cent that one peer may hold of what is limited for all: commands, bodies, waits, streams; 100 for no shares
    #[arg(
        long = "http-peer-share-percent",
        env = "HTTP_PEER_SHARE_PERCENT",
        default_value_t = 50,
        value_parser = clap::value_parser!(u8).range(1..=100)
    )]
    pub peer_share_percent: u8,

    /// Time for a request head to arrive, and for the first one on a new connection, in milliseconds
    #[arg(long = "http-header-read-timeout-ms", env = "HTTP_HEADER_READ_TIMEOUT_MS", default_value_t = 5_000)]
    pub header_read_timeout_ms: u64,

    /// Time that a connection is kept without a request, in milliseconds; longer than a load balancer keeps its own
    #[arg(long = "http-idle-ms", env = "HTTP_IDLE_MS", default_value_t = 75_000)]
    pub idle_ms: u64,

    /// Bytes of answers that one connection leaves waiting, before further ones are refused; one of any size is let in
    #[arg(
        long = "http-connection-answer-bytes-max",
        env = "HTTP_CONNECTION_ANSWER_BYTES_MAX",
        default_value_t = 16_777_216
    )]
    pub connection_answer_bytes_max: usize,

    /// Bytes that the kernel keeps of what is sent on one connection and not yet taken; 0 leaves it to the kernel
    #[arg(long = "http-send-buffer-bytes", env = "HTTP_SEND_BUFFER_BYTES", default_value_t = 262_144)]
    pub send_buffer_bytes: u32,

    /// Time that a peer may read nothing of what is sent to it before its connection is cut, in milliseconds
    #[arg(long = "http-write-stall-ms", env = "HTTP_WRITE_STALL_MS", default_value_t = 8_000)]
    pub write_stall_ms: u64,

    /// Bytes of a request head (at least 8192)
    #[arg(
        long = "http-headers-bytes-max",
        env = "HTTP_HEADERS_BYTES_MAX",
        default_value_t = 16_384,
        value_parser = clap::value_parser!(u32).range(8_192..)
    )]
    pub headers_bytes_max: u32,

    /// Header fields of a request
    #[arg(long = "http-headers-max", env = "HTTP_HEADERS_MAX", default_value_t = 64)]
    pub headers_max: usize,

    /// Concurrent HTTP/2 streams on one connection
    #[arg(long = "http2-streams-max", env = "HTTP2_STREAMS_MAX", default_value_t = 64)]
    pub http2_streams_max: u32,

    /// Streams an HTTP/2 client may reset before we have looked at them, before the connection is closed
    #[arg(long = "http2-resets-max", env = "HTTP2_RESETS_MAX", default_value_t = 20)]
    pub http2_resets_max: usize,

    /// Interval of HTTP/2 keep-alive pings, in milliseconds; a ping unanswered as long closes the connection
    #[arg(long = "http2-keep-alive-ms", env = "HTTP2_KEEP_ALIVE_MS", default_value_t = 20_000)]
    pub http2_keep_alive_ms: u64,

    /// Time that requests in flight have to finish at shutdown, in milliseconds
    #[arg(long = "http-drain-ms", env = "HTTP_DRAIN_MS", default_value_t = 10_000)]
    pub drain_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            connections_per_peer_max: 1_024,
            trusted_proxies: Vec::new(),
            forwarded_header: ForwardedHeader::XForwardedFor,
            body_bytes_max: 65_536,
            body_read_timeout_ms: 10_000,
            bodies_max: 2_048,
            peer_share_percent: 50,
            header_read_timeout_ms: 5_000,
            idle_ms: 75_000,
            connection_answer_bytes_max: 16_777_216,
            send_buffer_bytes: 262_144,
            write_stall_ms: 8_000,
            headers_bytes_max: 16_384,
            headers_max: 64,
            http2_streams_max: 64,
            http2_resets_max: 20,
            http2_keep_alive_ms: 20_000,
            drain_ms: 10_000,
        }
    }
}

impl Limits {
    /// [`Limits::header_read_timeout_ms`] as a duration.
    pub fn header_read_timeout(&self) -> Duration {
        Duration::from_millis(self.header_read_timeout_ms)
    }

    /// [`Limits::idle_ms`] as a duration.
    pub fn idle(&self) -> Duration {
        Duration::from_millis(self.idle_ms)
    }

    /// [`Limits::http2_keep_alive_ms`] as a duration.
    pub fn http2_keep_alive(&self) -> Duration {
        Duration::from_millis(self.http2_keep_alive_ms)
    }

    /// [`Limits::drain_ms`] as a duration.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// How many of `permits_max` one peer may hold: for [`super::admission::Admission::with_share`].
    pub fn peer_share(&self, permits_max: usize) -> usize {
        (permits_max.saturating_mul(usize::from(self.peer_share_percent)) / 100).max(1)
    }

    /// The part that a connection needs.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            head: self.header_read_timeout(),
            idle: self.idle(),
            farewell: FAREWELL,
            stall: Duration::from_millis(self.write_stall_ms),
            answer_bytes_max: self.connection_answer_bytes_max,
        }
    }

    /// The proxies to trust.
    pub(super) fn proxies(&self) -> Proxies {
        Proxies { trusted: self.trusted_proxies.clone(), header: self.forwarded_header }
    }

    /// The part that the body extractors need; clones of it count their bodies together.
    pub(crate) fn body(&self) -> BodyLimits {
        BodyLimits {
            bytes_max: self.body_bytes_max,
            read_timeout: Duration::from_millis(self.body_read_timeout_ms),
            arrivals: Arrivals::new(self.bodies_max, self.peer_share(self.bodies_max)),
        }
    }
}

/// The limits of request bodies; travels as a request extension from [`super::serve`] to the extractors.
#[derive(Debug, Clone)]
pub(crate) struct BodyLimits {
    pub(crate) bytes_max: usize,
    pub(crate) read_timeout: Duration,
    pub(crate) arrivals: Arrivals,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Limits::default().body()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn the_default_is_what_the_flags_default_to() {
        let flags = Flags::try_parse_from(["x"]).unwrap();
        assert_eq!(format!("{:?}", flags.limits), format!("{:?}", Limits::default()));
    }
}
