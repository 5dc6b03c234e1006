//! Netlink bytes: messages and attributes, written and read. Reading never panics: what does
//! not fit ends the iteration.

const HEADER: usize = 16;
const GENERIC: usize = 4;
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;

pub(crate) const SUBSYSTEM: u16 = 10 << 8;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const F_REQUEST: u16 = 0x1;
pub(crate) const F_ACK: u16 = 0x4;
pub(crate) const F_DUMP_INTR: u16 = 0x10;
pub(crate) const F_DUMP: u16 = 0x300;
pub(crate) const F_EXCL: u16 = 0x200;
pub(crate) const F_CREATE: u16 = 0x400;
pub(crate) const F_APPEND: u16 = 0x800;
pub(crate) const F_ACK_TLVS: u16 = 0x200;

pub(crate) const BATCH_BEGIN: u16 = 0x10;
pub(crate) const BATCH_END: u16 = 0x11;

/// `NFT_MSG_*` with the subsystem in the high byte.
pub(crate) mod msg {
    use super::SUBSYSTEM;
    pub(crate) const NEW_TABLE: u16 = SUBSYSTEM;
    pub(crate) const GET_TABLE: u16 = SUBSYSTEM | 1;
    pub(crate) const DEL_TABLE: u16 = SUBSYSTEM | 2;
    pub(crate) const NEW_CHAIN: u16 = SUBSYSTEM | 3;
    pub(crate) const GET_CHAIN: u16 = SUBSYSTEM | 4;
    pub(crate) const NEW_RULE: u16 = SUBSYSTEM | 6;
    pub(crate) const DEL_CHAIN: u16 = SUBSYSTEM | 5;
    pub(crate) const GET_RULE: u16 = SUBSYSTEM | 7;
    pub(crate) const DEL_RULE: u16 = SUBSYSTEM | 8;
    pub(crate) const NEW_SET: u16 = SUBSYSTEM | 9;
    pub(crate) const GET_SET: u16 = SUBSYSTEM | 10;
    pub(crate) const DEL_SET: u16 = SUBSYSTEM | 11;
    pub(crate) const NEW_SET_ELEM: u16 = SUBSYSTEM | 12;
    pub(crate) const GET_SET_ELEM: u16 = SUBSYSTEM | 13;
    pub(crate) const DEL_SET_ELEM: u16 = SUBSYSTEM | 14;
    pub(crate) const NEW_GEN: u16 = SUBSYSTEM | 15;
    pub(crate) const GET_GEN: u16 = SUBSYSTEM | 16;
    pub(crate) const TRACE: u16 = SUBSYSTEM | 17;
}

/// What of a message is before its attributes.
pub(crate) const BEFORE_ATTRIBUTES: usize = HEADER + GENERIC;

/// Attributes being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Body(pub(crate) Vec<u8>);

impl Body {
    pub(crate) fn bytes(&mut self, kind: u16, data: &[u8]) -> &mut Self {
        // The length field has 16 bits; callers split lists before they reach it.
        debug_assert!(data.len() + 4 <= usize::from(u16::MAX));
        self.0.extend(((data.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Body)) -> &mut Self {
        let start = self.0.len();
        self.0.extend([0; 4]);
        fill(self);
        let length = self.0.len() - start;
        debug_assert!(length <= usize::from(u16::MAX));
        self.0[start..start + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        self.0[start + 2..start + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
        self
    }
}

/// Appends one nfnetlink message to `out`.
pub(crate) fn message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    seq: u32,
    family: u8,
    resource: u16,
    body: &[u8],
) {
    out.extend(((HEADER + GENERIC + body.len()) as u32).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((flags | F_REQUEST).to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend(0u32.to_ne_bytes());
    out.extend([family, 0]);
    out.extend(resource.to_be_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// One message as received; `payload` starts after the netlink header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) port: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The protocol family in the nfnetlink header.
    pub(crate) fn family(&self) -> u8 {
        self.payload.first().copied().unwrap_or(0)
    }

    /// The attributes after the nfnetlink header.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.payload.get(GENERIC..).unwrap_or_default())
    }

    /// The error number of an NLMSG_ERROR or NLMSG_DONE: 0 is an acknowledgement.
    pub(crate) fn errno(&self) -> i32 {
        self.payload.first_chunk().map_or(0, |b| -i32::from_ne_bytes(*b))
    }

    /// The kernel's own words in an NLMSG_ERROR (extended acknowledgement), if it had any.
    pub(crate) fn error_text(&self) -> Option<String> {
        self.told(1).map(text)
    }

    /// Where in the message that failed the attribute at fault begins, if the kernel says so.
    pub(crate) fn error_offset(&self) -> Option<usize> {
        self.told(2)?.first_chunk().map(|b| u32::from_ne_bytes(*b) as usize)
    }

    /// What the kernel says besides the number of the error (`NLMSGERR_ATTR_*`).
    fn told(&self, what: u16) -> Option<&'a [u8]> {
        (self.kind == NLMSG_ERROR && self.flags & F_ACK_TLVS != 0).then_some(())?;
        Attributes(self.payload.get(4 + HEADER..)?).get(what)
    }
}

/// The messages of one datagram.
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let header = self.0.get(..HEADER)?;
        let word =
            |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(0) as usize;
        let payload = self.0.get(HEADER..length)?;
        let found = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            seq: word(8),
            port: word(12),
            payload,
        };
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(found)
    }
}

/// Attributes as received: type (without flags) and data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Attributes<'a> {
    pub(crate) fn get(self, kind: u16) -> Option<&'a [u8]> {
        { self }.find(|(k, _)| *k == kind).map(|(_, data)| data)
    }

    pub(crate) fn nested(self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    pub(crate) fn text(self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        self.get(kind)?.first_chunk().map(|b| u32::from_be_bytes(*b))
    }

    pub(crate) fn be64(self, kind: u16) -> Option<u64> {
        self.get(kind)?.first_chunk().map(|b| u64::from_be_bytes(*b))
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let header = self.0.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let data = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, data))
    }
}

/// Text up to the first NUL.
pub(crate) fn text(data: &[u8]) -> String {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    String::from_utf8_lossy(&data[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_reads_back() {
        let mut body = Body::default();
        body.text(1, "weft").be32(2, 7).nest(3, |b| {
            b.bytes(1, &[1, 2, 3]);
        });
        let mut out = Vec::new();
        message(&mut out, msg::NEW_TABLE, F_ACK, 9, 2, 0, &body.0);
        let read = Messages(&out).next().unwrap();
        assert_eq!((read.kind, read.seq, read.family()), (msg::NEW_TABLE, 9, 2));
        let attributes = read.attributes();
        assert_eq!(attributes.text(1).unwrap(), "weft");
        assert_eq!(attributes.be32(2), Some(7));
        assert_eq!(attributes.nested(3).get(1), Some(&[1, 2, 3][..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in Messages(&bytes) {
                let _ = (message.errno(), message.error_text(), message.error_offset(), message.family());
                for (_, data) in message.attributes() {
                    prop_assert!(Attributes(data).count() <= data.len() / 4);
                }
            }
        }
    }
}
