//! The header in front of every frame of the TUN device: `struct virtio_net_hdr`, in host byte
//! order (Virtio 1.2, 5.1.6).

use super::Reason;

/// Its length in bytes.
pub(crate) const HEADER: usize = 10;
const NEEDS_CHECKSUM: u8 = 1;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// What kind of train a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp4,
    Tcp6,
    Udp,
}

/// The header, decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Where the sum that is still to be made begins, and where its field is from there.
    pub checksum: Option<(u16, u16)>,
    /// What kind of train it is, the headers' length, and the payload of one segment.
    pub train: Option<(Kind, u16, u16)>,
}

impl FrameHeader {
    pub(crate) fn parse(bytes: &[u8; HEADER]) -> Result<FrameHeader, Reason> {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let kind = match bytes[1] & !GSO_ECN {
            0 => None,
            GSO_TCP4 => Some(Kind::Tcp4),
            GSO_TCP6 => Some(Kind::Tcp6),
            GSO_UDP => Some(Kind::Udp),
            _ => return Err(Reason::Malformed),
        };
        Ok(FrameHeader {
            checksum: (bytes[0] & NEEDS_CHECKSUM != 0).then(|| (word(6), word(8))),
            train: kind.map(|kind| (kind, word(2), word(4))),
        })
    }

    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut word = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
        if let Some((_, headers, segment)) = self.train {
            word(2, headers);
            word(4, segment);
        }
        if let Some((start, offset)) = self.checksum {
            word(6, start);
            word(8, offset);
            bytes[0] = NEEDS_CHECKSUM;
        }
        bytes[1] = match self.train.map(|(kind, ..)| kind) {
            None => 0,
            Some(Kind::Tcp4) => GSO_TCP4,
            Some(Kind::Tcp6) => GSO_TCP6,
            Some(Kind::Udp) => GSO_UDP,
        };
        bytes
    }
}
