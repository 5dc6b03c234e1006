//! What the fuzz targets reach of readers that nobody else outside of this crate needs.

use std::time::Duration;

use crate::interface::ovs::ovsdb::{Scanner, results};
use crate::ipam::dhcp::daemon::saved::Saved;
use crate::ipam::dhcp::gob::Decoder;
use crate::ipam::dhcp::rpc::{Arguments, result_of};

/// A stream of Go's gob encoding, as callers and the daemon of `dhcp` send it, in pieces.
pub fn dhcp_stream(pieces: &[&[u8]]) {
    let (mut decoder, mut stream) = (Decoder::new(), Vec::new());
    for piece in pieces {
        stream.extend_from_slice(piece);
        while let Ok(Some(value)) = decoder.next(&mut stream) {
            let again = Arguments::of(&value);
            assert_eq!(Arguments::of(&again.value()), again);
            let _ = result_of(&value);
        }
    }
}

/// A lease on disk.
pub fn dhcp_lease(text: &[u8]) {
    let Ok(saved) = serde_json::from_slice::<Saved>(text) else { return };
    let _ = saved.key();
    let (v4, v6) = saved.leases(1, Duration::from_secs(1));
    let _ = (v4.map(|lease| lease.settings()), v6.map(|lease| lease.settings()));
}

/// What an Open vSwitch database says, in pieces.
pub fn ovsdb_answers(pieces: &[&[u8]]) {
    let (mut scanner, mut received) = (Scanner::default(), Vec::new());
    for piece in pieces {
        received.extend_from_slice(piece);
        while let Some(end) = scanner.end(&received) {
            let message: Vec<u8> = received.drain(..end).collect();
            scanner = Scanner::default();
            if let Ok(message) = serde_json::from_slice(&message) {
                let _ = results(&message);
            }
        }
    }
}
