//! The two bits of explicit congestion notification, carried through the tunnel (RFC 6040).

use super::Reason;
use super::packet::correct;

/// No ECN (RFC 3168, 5).
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
/// Congestion experienced.
const CE: u8 = 3;

/// The bits of an IPv4 or IPv6 packet; its header is whole.
pub(crate) fn of(packet: &[u8], v4: bool) -> u8 {
    if v4 { packet[1] & 3 } else { packet[1] >> 4 & 3 }
}

/// What the inner packet's bits become at the tunnel's end (RFC 6040, 4.2): the underlay's
/// congestion is the packet's own, and who cannot be told of it loses the packet.
pub(crate) fn decapsulated(outer: u8, inner: u8) -> Result<u8, Reason> {
    match (outer, inner) {
        (CE, NOT_ECT) => Err(Reason::Congestion),
        (CE, _) => Ok(CE),
        (ECT_1, ECT_0) => Ok(ECT_1),
        _ => Ok(inner),
    }
}

/// Sets the bits of a packet whose header is whole.
pub(crate) fn set(packet: &mut [u8], v4: bool, ecn: u8) {
    if !v4 {
        packet[1] = packet[1] & !0x30 | ecn << 4;
        return;
    }
    let old = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] = packet[1] & !3 | ecn;
    let new = u16::from_be_bytes([packet[0], packet[1]]);
    correct(packet, old, new);
}
