//! Where the programs and the servers of a test run are: the only place here that reads the environment.
#![expect(clippy::disallowed_methods, reason = "the environment names the servers and programs of a test run")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

/// A program that was built beside this test, or where `ORDER_BIN_DIR` says.
pub(crate) fn program(name: &str) -> PathBuf {
    let directory = std::env::var("ORDER_BIN_DIR").map(PathBuf::from).unwrap_or_else(|_unset| {
        // target/debug/deps/promises-…: the programs are one directory up.
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap().to_path_buf()
    });
    let program = directory.join(name);
    assert!(program.exists(), "{} is not there: `make test` builds it", program.display());
    program
}

/// The directory of Kafka's jars, where one is named.
pub(crate) fn kafka_libs() -> Option<PathBuf> {
    std::env::var("ORDER_KAFKA_LIBS").ok().map(PathBuf::from)
}

/// The first of two such ports side by side: a broker's and its controller's.
pub(crate) fn free_port_pair() -> u16 {
    let mut first = free_port();
    loop {
        let second = free_port();
        if second == first + 1 {
            return first;
        }
        first = second;
    }
}

/// A port that nobody has, and that no outgoing connection is given: it lies below the kernel's range for those.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 30_000;
    const COUNT: u16 = 2_700;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes beside this one begin elsewhere.
    let start = u16::try_from(std::process::id() * 101 % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} on is free")
}
