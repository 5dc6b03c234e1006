//! IPv4 fragmentation (RFC 791, 3.2), for paths smaller than the device's MTU.

use weft_kernel::Piece;

use super::Reason;
use super::checksum::{field, sum};
use super::egress::Scratch;
use super::packet::Inner;

const MORE_FRAGMENTS: u16 = 0x2000;

/// Splits the IPv4 packet at `at`, which may be fragmented, into packets of at most `limit`
/// bytes; how many.
pub(crate) fn split(
    arena: &mut [u8],
    at: usize,
    inner: &Inner,
    limit: u32,
    scratch: &mut Scratch,
    mut each: impl FnMut([Piece; 2]),
) -> Result<u64, Reason> {
    let header = inner.header;
    // Linux believes in no smaller path (net.ipv4.route.min_pmtu is 552).
    let room = (limit.max(512) as usize - header) / 8 * 8;
    let bits = u16::from_be_bytes([arena[at + 6], arena[at + 7]]);
    let payload = inner.len - header;
    let mut done = 0;
    let mut count = 0;
    while done < payload {
        let len = room.min(payload - done);
        let start = scratch.take(arena, header).ok_or(Reason::TooBig)?;
        arena.copy_within(at..at + header, start);
        let packet = &mut arena[start..start + header];
        packet[2..4].copy_from_slice(&((header + len) as u16).to_be_bytes());
        let more = if done + len < payload { MORE_FRAGMENTS } else { bits & MORE_FRAGMENTS };
        let offset = (bits & !MORE_FRAGMENTS) + (done / 8) as u16;
        packet[6..8].copy_from_slice(&(offset | more).to_be_bytes());
        packet[10..12].fill(0);
        let check = field(sum(packet));
        packet[10..12].copy_from_slice(&check);
        let body = at + header + done;
        each([
            Piece { start: start as u32, len: header as u32 },
            Piece { start: body as u32, len: len as u32 },
        ]);
        done += len;
        count += 1;
    }
    Ok(count)
}
