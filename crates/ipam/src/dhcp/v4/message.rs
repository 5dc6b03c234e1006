//! The message of RFC 2131 §2 and its options.

use std::net::Ipv4Addr;

use weft_model::Mac;

/// Where the options begin: after the fixed fields and the magic number.
const FIXED: usize = 236;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
/// What BOOTP senders fill up to; some relays drop shorter messages.
const SHORTEST: usize = 300;
const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;
/// Ethernet.
const HARDWARE: [u8; 2] = [1, 6];
const BROADCAST: u16 = 0x8000;

/// The option numbers that are used here (RFC 2132 and later).
pub mod option {
    /// Filler without a length.
    pub const PAD: u8 = 0;
    /// The subnet's mask.
    pub const SUBNET_MASK: u8 = 1;
    /// Routers.
    pub const ROUTER: u8 = 3;
    /// Name servers.
    pub const DNS: u8 = 6;
    /// The client's host name.
    pub const HOST_NAME: u8 = 12;
    /// The local domain.
    pub const DOMAIN: u8 = 15;
    /// The link's MTU.
    pub const MTU: u8 = 26;
    /// Classful routes.
    pub const STATIC_ROUTES: u8 = 33;
    /// Time servers.
    pub const NTP: u8 = 42;
    /// What the vendor defines.
    pub const VENDOR: u8 = 43;
    /// The address that the client wants.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// The lease's length in seconds.
    pub const LEASE_TIME: u8 = 51;
    /// Options go on in the fields `file` and `sname`.
    pub const OVERLOAD: u8 = 52;
    /// Which message it is.
    pub const MESSAGE_TYPE: u8 = 53;
    /// Which server it is from or for.
    pub const SERVER_ID: u8 = 54;
    /// The options that the client asks for.
    pub const PARAMETERS: u8 = 55;
    /// Why a server refuses.
    pub const MESSAGE: u8 = 56;
    /// The largest message that the client takes.
    pub const LARGEST_MESSAGE: u8 = 57;
    /// T1 in seconds.
    pub const RENEWAL_TIME: u8 = 58;
    /// T2 in seconds.
    pub const REBINDING_TIME: u8 = 59;
    /// The vendor's class.
    pub const VENDOR_CLASS: u8 = 60;
    /// Who the client is.
    pub const CLIENT_ID: u8 = 61;
    /// The user's class.
    pub const USER_CLASS: u8 = 77;
    /// Search domains (RFC 3397).
    pub const SEARCH: u8 = 119;
    /// Classless routes (RFC 3442).
    pub const CLASSLESS_ROUTES: u8 = 121;
    /// The same as Microsoft's servers number it.
    pub const MICROSOFT_ROUTES: u8 = 249;
    /// Ends the options.
    pub const END: u8 = 255;
}

/// The values of option 53.
pub mod kind {
    /// Client: who has an address for me?
    pub const DISCOVER: u8 = 1;
    /// Server: have this one.
    pub const OFFER: u8 = 2;
    /// Client: I take it, or want to keep it.
    pub const REQUEST: u8 = 3;
    /// Client: somebody else has it.
    pub const DECLINE: u8 = 4;
    /// Server: it is yours.
    pub const ACK: u8 = 5;
    /// Server: it is not.
    pub const NAK: u8 = 6;
    /// Client: I need it no more.
    pub const RELEASE: u8 = 7;
}

/// Options by number, in the order in which they were set or first seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// The value of an option.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(other, _)| *other == code).map(|(_, value)| &value[..])
    }

    /// Sets an option; an earlier value goes.
    pub fn set(&mut self, code: u8, value: impl Into<Vec<u8>>) {
        let value = value.into();
        match self.0.iter_mut().find(|(other, _)| *other == code) {
            Some((_, old)) => *old = value,
            None => self.0.push((code, value)),
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(code, value)| (*code, &value[..]))
    }

    /// An option that is one 32-bit number.
    pub fn number(&self, code: u8) -> Option<u32> {
        self.get(code)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// An option that is one address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.number(code).map(Ipv4Addr::from_bits)
    }

    /// An option that is a list of addresses; what is left over at its end is not one.
    pub fn addresses(&self, code: u8) -> impl Iterator<Item = Ipv4Addr> {
        let (quads, _) = self.get(code).unwrap_or_default().as_chunks::<4>();
        quads.iter().map(|quad| Ipv4Addr::from_octets(*quad))
    }

    /// Values of one option that came in pieces are one value (RFC 3396).
    fn extend(&mut self, code: u8, more: &[u8]) {
        match self.0.iter_mut().find(|(other, _)| *other == code) {
            Some((_, value)) => value.extend(more),
            None => self.0.push((code, more.to_vec())),
        }
    }

    fn decode(&mut self, mut bytes: &[u8]) -> Result<(), DecodeError> {
        loop {
            match bytes {
                [] | [option::END, ..] => return Ok(()),
                [option::PAD, rest @ ..] => bytes = rest,
                [code, length, rest @ ..] => {
                    let value = rest.split_at_checked(usize::from(*length));
                    let (value, rest) = value.ok_or(DecodeError::Option { code: *code })?;
                    self.extend(*code, value);
                    bytes = rest;
                }
                [code] => return Err(DecodeError::Option { code: *code }),
            }
        }
    }
}

/// What makes bytes no DHCP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends before the options begin.
    #[error("it ends within the fixed fields")]
    Short,
    /// It is BOOTP without options, or something else.
    #[error("the magic number of DHCP is missing")]
    Magic,
    /// It is not about an Ethernet address.
    #[error("its hardware address is not of Ethernet")]
    Hardware,
    /// An option says that it is longer than the message.
    #[error("option {code} runs beyond the end")]
    Option {
        /// Which one.
        code: u8,
    },
}

/// A message. Fields that only BOOTP uses are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// From a server; else from a client.
    pub reply: bool,
    /// The exchange that it belongs to.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client can only be answered by broadcast.
    pub broadcast: bool,
    /// The address that the client has.
    pub client: Ipv4Addr,
    /// The address that it gets.
    pub yours: Ipv4Addr,
    /// The relay.
    pub relay: Ipv4Addr,
    /// The client's hardware address.
    pub mac: Mac,
    /// All else.
    pub options: Options,
}

impl Message {
    /// A client's message.
    pub fn request(kind: u8, xid: u32, mac: Mac) -> Message {
        let mut options = Options::default();
        options.set(option::MESSAGE_TYPE, [kind]);
        let none = Ipv4Addr::UNSPECIFIED;
        Message {
            reply: false,
            xid,
            secs: 0,
            broadcast: false,
            client: none,
            yours: none,
            relay: none,
            mac,
            options,
        }
    }

    /// Which message it is (option 53).
    pub fn kind(&self) -> Option<u8> {
        match self.options.get(option::MESSAGE_TYPE) {
            Some([kind]) => Some(*kind),
            _ => None,
        }
    }

    /// Decodes any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let (fixed, rest) = bytes.split_at_checked(FIXED).ok_or(DecodeError::Short)?;
        let tail = rest.strip_prefix(&MAGIC).ok_or(DecodeError::Magic)?;
        if fixed[1..3] != HARDWARE {
            return Err(DecodeError::Hardware);
        }
        let mut options = Options::default();
        options.decode(tail)?;
        // RFC 2131 §4.1: first the options field, then file, then sname.
        let overload = options.get(option::OVERLOAD).and_then(|value| value.first()).copied().unwrap_or(0);
        if overload & 1 != 0 {
            options.decode(&fixed[FILE])?;
        }
        if overload & 2 != 0 {
            options.decode(&fixed[SNAME])?;
        }
        let quad = |at: usize| [fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]];
        Ok(Message {
            reply: fixed[0] == 2,
            xid: u32::from_be_bytes(quad(4)),
            secs: u16::from_be_bytes([fixed[8], fixed[9]]),
            broadcast: u16::from_be_bytes([fixed[10], fixed[11]]) & BROADCAST != 0,
            client: quad(12).into(),
            yours: quad(16).into(),
            relay: quad(24).into(),
            mac: Mac([fixed[28], fixed[29], fixed[30], fixed[31], fixed[32], fixed[33]]),
            options,
        })
    }

    /// The message as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SHORTEST);
        bytes.extend([if self.reply { 2 } else { 1 }, HARDWARE[0], HARDWARE[1], 0]);
        bytes.extend(self.xid.to_be_bytes());
        bytes.extend(self.secs.to_be_bytes());
        bytes.extend(if self.broadcast { BROADCAST } else { 0 }.to_be_bytes());
        for address in [self.client, self.yours, Ipv4Addr::UNSPECIFIED, self.relay] {
            bytes.extend(address.octets());
        }
        bytes.extend(self.mac.0);
        bytes.resize(FIXED, 0);
        bytes.extend(MAGIC);
        for (code, value) in self.options.iter() {
            encode_option(&mut bytes, code, value);
        }
        bytes.push(option::END);
        bytes.resize(bytes.len().max(SHORTEST), 0);
        bytes
    }
}

/// What is longer than 255 bytes goes in pieces (RFC 3396).
fn encode_option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    let pieces = if value.is_empty() { vec![value] } else { value.chunks(255).collect() };
    for piece in pieces {
        bytes.push(code);
        bytes.push(u8::try_from(piece.len()).unwrap_or(u8::MAX));
        bytes.extend(piece);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blank() -> Vec<u8> {
        let mut bytes = Message::request(kind::DISCOVER, 7, Mac([2; 6])).encode();
        bytes.truncate(FIXED + 4);
        bytes
    }

    #[test]
    fn options_go_on_in_file_and_then_sname() {
        let mut bytes = blank();
        bytes[FILE.start..FILE.start + 5].copy_from_slice(&[119, 2, 3, 4, option::END]);
        bytes[SNAME.start..SNAME.start + 4].copy_from_slice(&[119, 1, 5, option::END]);
        bytes.extend([119, 2, 1, 2, option::OVERLOAD, 1, 3, option::END]);
        let message = Message::decode(&bytes).unwrap();
        assert_eq!(message.options.get(119), Some(&[1, 2, 3, 4, 5][..]));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        for tail in [&[6, 200, 1][..], &[6], &[option::OVERLOAD, 1, 1]] {
            let mut bytes = blank();
            bytes[FILE].fill(0xfe);
            bytes.extend(tail);
            assert!(matches!(Message::decode(&bytes), Err(DecodeError::Option { .. })), "{tail:?}");
        }
        assert_eq!(Message::decode(&blank()[..100]), Err(DecodeError::Short));
        let mut bytes = blank();
        bytes[FIXED] = 0;
        assert_eq!(Message::decode(&bytes), Err(DecodeError::Magic));
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            options in prop::collection::btree_map(1u8..255, prop::collection::vec(any::<u8>(), 0..700), 0..6),
            xid in any::<u32>(), secs in any::<u16>(), broadcast in any::<bool>(), ip in any::<u32>(),
        ) {
            let mut message = Message::request(kind::REQUEST, xid, Mac([2, 3, 4, 5, 6, 7]));
            for (code, value) in options.into_iter().filter(|(code, _)| *code != option::OVERLOAD) {
                message.options.set(code, value);
            }
            message = Message { secs, broadcast, yours: ip.into(), relay: (!ip).into(), ..message };
            prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(tail in prop::collection::vec(any::<u8>(), 0..400), fixed in any::<[u8; 32]>()) {
            let mut bytes = blank();
            bytes[FILE.start..FILE.start + 32].copy_from_slice(&fixed);
            bytes.extend([option::OVERLOAD, 1, 3]);
            bytes.extend(&tail);
            if let Ok(message) = Message::decode(&bytes) {
                let size: usize = message.options.iter().map(|(_, value)| value.len()).sum();
                prop_assert!(size <= bytes.len());
            }
            let _ = Message::decode(&tail);
        }
    }
}
