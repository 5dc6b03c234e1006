//! Netlink's framing: messages in a datagram, attributes in a message. Reading never fails: what
//! is cut short ends the walk, what is unknown is the caller's to skip.

use std::net::IpAddr;

use netlink_packet_core::Emitable;
use weft_model::Mac;

const HEADER: usize = 16;
/// Nested and byte-order flags of an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.get(..HEADER)?;
        let len = usize::try_from(u32_at(header, 0)?).ok()?;
        let payload = datagram.get(HEADER..len)?;
        let message =
            Message { kind: u16_at(header, 4)?, flags: u16_at(header, 6)?, seq: u32_at(header, 8)?, payload };
        datagram = datagram.get(aligned(len)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in `bytes`: type without its flags, and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Appends a message to `buffer`; the port number is left to the kernel.
pub(crate) fn append(buffer: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, body: &impl Emitable) {
    let (start, len) = (buffer.len(), HEADER + body.buffer_len());
    buffer.resize(start + aligned(len), 0);
    let message = &mut buffer[start..start + len];
    // No request of ours comes near 4 GiB.
    message[0..4].copy_from_slice(&(len as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&flags.to_ne_bytes());
    message[8..12].copy_from_slice(&seq.to_ne_bytes());
    body.emit(&mut message[HEADER..]);
}

/// Takes the wish for an acknowledgement from all messages in `buffer` but the last.
pub(crate) fn acknowledge_last_only(buffer: &mut [u8]) {
    let mut start = 0;
    while let Some(len) = u32_at(buffer.get(start..).unwrap_or_default(), 0) {
        let next = start + aligned(len as usize);
        if next >= buffer.len() {
            return;
        }
        if let Some(flags) = buffer.get_mut(start + 6..start + 8) {
            let without = u16::from_ne_bytes([flags[0], flags[1]]) & !(libc::NLM_F_ACK as u16);
            flags.copy_from_slice(&without.to_ne_bytes());
        }
        start = next;
    }
}

/// A message's body as bytes: its fixed header, then attributes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new(header: &[u8]) -> Body {
        Body(header.to_vec())
    }

    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) -> &mut Body {
        // No value of ours comes near 64 KiB.
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(aligned(self.0.len()), 0);
        self
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Body {
        self.put(kind, &value.to_ne_bytes())
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Body {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.put(kind, &bytes)
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Body)) -> &mut Body {
        let mut inner = Body::default();
        fill(&mut inner);
        self.put(kind, &inner.0)
    }
}

impl Emitable for Body {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.0);
    }
}

fn aligned(len: usize) -> usize {
    len.saturating_add(3) & !3
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    Some(i32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn flag(value: &[u8]) -> Option<bool> {
    value.first().map(|byte| *byte != 0)
}

pub(crate) fn mac(value: &[u8]) -> Option<Mac> {
    value.try_into().ok().map(Mac)
}

/// Text up to its zero byte; other encodings than UTF-8 are made readable, not refused.
pub(crate) fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// An address of the family its length says.
pub(crate) fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
        _ => None,
    }
}

/// The address family of `ip` as the kernel numbers it.
pub(crate) fn family(ip: IpAddr) -> u8 {
    // Both constants fit a byte.
    if ip.is_ipv4() { libc::AF_INET as u8 } else { libc::AF_INET6 as u8 }
}

/// `Some(address)` if `ip` belongs to the family in a message's header.
pub(crate) fn of_family(ip: Option<IpAddr>, family_byte: u8) -> Option<IpAddr> {
    ip.filter(|ip| family(*ip) == family_byte)
}

/// The unspecified address of a family, for a destination that a message leaves out.
pub(crate) fn unspecified(family_byte: u8) -> Option<IpAddr> {
    match i32::from(family_byte) {
        libc::AF_INET => Some(IpAddr::from([0; 4])),
        libc::AF_INET6 => Some(IpAddr::from([0; 16])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::{LinkKind, NewLink, Route, addr, bridge_vlan, link_codec, neigh, route, rule, tc, vf};

    /// Bytes that look like a message of the kernel: a header with a known family, then
    /// attributes of small types with any value.
    fn plausible() -> impl Strategy<Value = Vec<u8>> {
        let attribute = (0..64u16, vec(any::<u8>(), 0..24));
        let family = prop_oneof![Just(0u8), Just(2), Just(7), Just(10)];
        (family, vec(any::<u8>(), 7..16), vec(attribute, 0..8)).prop_map(|(family, rest, attributes)| {
            let mut bytes = vec![family];
            bytes.extend(rest);
            for (kind, value) in attributes {
                let mut one = vec![0; aligned(4 + value.len())];
                one[0..2].copy_from_slice(&(4 + value.len() as u16).to_ne_bytes());
                one[2..4].copy_from_slice(&kind.to_ne_bytes());
                one[4..4 + value.len()].copy_from_slice(&value);
                bytes.extend(one);
            }
            bytes
        })
    }

    fn decode_as_everything(bytes: &[u8]) {
        link_codec::decode(bytes);
        addr::decode(bytes);
        route::decode(bytes);
        neigh::decode(bytes);
        neigh::decode_fdb(bytes);
        rule::decode(bytes);
        tc::decode_qdisc(bytes);
        tc::decode_class(bytes);
        tc::decode_filter(bytes);
        bridge_vlan::decode(bytes);
        vf::decode(bytes);
        for message in messages(bytes) {
            crate::monitor::decode(&message);
            crate::ack::refusal(&message);
            crate::ack::end_of_dump(&message);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in vec(any::<u8>(), 0..400)) {
            decode_as_everything(&bytes);
        }

        #[test]
        fn no_attributes_make_a_decoder_panic(bytes in plausible(), kind in 1..90u16, flags: u16) {
            decode_as_everything(&bytes);
            let mut datagram = Vec::new();
            append(&mut datagram, kind, flags, 1, &DefaultNla::new(1, bytes));
            decode_as_everything(&datagram);
        }

        #[test]
        fn unknown_attributes_change_nothing(kind in 40_000..50_000u16, value in vec(any::<u8>(), 0..40)) {
            let ours = Route { oif: Some(3), metric: 5, ..Route::new("10.1.0.0/16".parse().unwrap()) };
            let mut message = route::encode(&ours);
            let unknown = DefaultNla::new(kind & TYPE_MASK | 0x2000, value);
            message.attributes.insert(0, netlink_packet_route::route::RouteAttribute::Other(unknown));
            let mut bytes = Vec::new();
            append(&mut bytes, libc::RTM_NEWROUTE, 0, 9, &message);
            let read = messages(&bytes).next().unwrap();
            prop_assert_eq!((read.kind, read.seq), (libc::RTM_NEWROUTE, 9));
            prop_assert_eq!(route::decode(read.payload), Some(ours));
        }
    }

    #[test]
    fn an_encoded_link_decodes() {
        let kind = LinkKind::Vxlan {
            vni: 9,
            port: 4789,
            local: "fd00::1".parse().ok(),
            dev: Some(2),
            learning: true,
        };
        let made = NewLink { mtu: Some(1400), up: true, ..NewLink::new("vx0", kind) };
        let mut bytes = Vec::new();
        append(&mut bytes, libc::RTM_NEWLINK, 0, 1, &link_codec::encode_new(&made));
        let link = link_codec::decode(messages(&bytes).next().unwrap().payload).unwrap();
        assert_eq!((link.name.as_str(), link.mtu, link.up), ("vx0", 1400, true));
        let vxlan = link.vxlan.unwrap();
        assert_eq!((vxlan.vni, vxlan.port, vxlan.dev, vxlan.learning), (9, 4789, Some(2), true));
        assert_eq!(vxlan.local, "fd00::1".parse().ok());
    }
}
