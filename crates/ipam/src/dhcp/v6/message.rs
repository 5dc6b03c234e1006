//! The message of RFC 8415 §8 and its options.

/// The option numbers that are used here.
pub mod option {
    /// Who the client is.
    pub const CLIENT_ID: u16 = 1;
    /// Who the server is.
    pub const SERVER_ID: u16 = 2;
    /// An association for addresses.
    pub const IA_NA: u16 = 3;
    /// An address of it.
    pub const IA_ADDRESS: u16 = 5;
    /// The options that the client asks for.
    pub const ASKED_FOR: u16 = 6;
    /// How much a server wants to be chosen.
    pub const PREFERENCE: u16 = 7;
    /// Hundredths of a second since the client began.
    pub const ELAPSED: u16 = 8;
    /// How it went.
    pub const STATUS: u16 = 13;
    /// Two messages instead of four.
    pub const RAPID_COMMIT: u16 = 14;
    /// Name servers.
    pub const DNS: u16 = 23;
    /// Search domains.
    pub const SEARCH: u16 = 24;
    /// Time servers.
    pub const NTP: u16 = 56;
    /// The longest wait between SOLICITs that the server wants.
    pub const SOLICIT_MAX_RT: u16 = 82;
}

/// Message types.
pub mod kind {
    /// Client: who has an address for me?
    pub const SOLICIT: u8 = 1;
    /// Server: I have.
    pub const ADVERTISE: u8 = 2;
    /// Client: I take it.
    pub const REQUEST: u8 = 3;
    /// Client: is it still right on this link?
    pub const CONFIRM: u8 = 4;
    /// Client: extend it, to its server.
    pub const RENEW: u8 = 5;
    /// Client: extend it, to any server.
    pub const REBIND: u8 = 6;
    /// Server: so it is.
    pub const REPLY: u8 = 7;
    /// Client: I need it no more.
    pub const RELEASE: u8 = 8;
    /// Client: somebody else has it.
    pub const DECLINE: u8 = 9;
    /// Client: settings alone, no address.
    pub const INFORMATION_REQUEST: u8 = 11;
}

/// Status codes (RFC 8415 §21.13).
pub mod status {
    /// It went well.
    pub const SUCCESS: u16 = 0;
    /// There is no address left.
    pub const NO_ADDRESS: u16 = 2;
    /// The server does not know the association.
    pub const NO_BINDING: u16 = 3;
    /// The address is none of this link.
    pub const NOT_ON_LINK: u16 = 4;
}

/// Options in their order; one number may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options(Vec<(u16, Vec<u8>)>);

impl Options {
    /// Decodes any bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<Options, DecodeError> {
        let mut options = Vec::new();
        while !bytes.is_empty() {
            let (head, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
            let code = u16::from_be_bytes([head[0], head[1]]);
            let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
            let (value, rest) = rest.split_at_checked(length).ok_or(DecodeError::Option { code })?;
            options.push((code, value.to_vec()));
            bytes = rest;
        }
        Ok(Options(options))
    }

    /// The options as they are sent. What no option has room for is cut.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        for (code, value) in &self.0 {
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            bytes.extend(code.to_be_bytes());
            bytes.extend(length.to_be_bytes());
            bytes.extend(&value[..usize::from(length)]);
        }
    }

    /// The first value of an option.
    pub fn get(&self, code: u16) -> Option<&[u8]> {
        self.all(code).next()
    }

    /// All values of an option.
    pub fn all(&self, code: u16) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(other, _)| *other == code).map(|(_, value)| &value[..])
    }

    /// Adds an option.
    pub fn push(&mut self, code: u16, value: impl Into<Vec<u8>>) {
        self.0.push((code, value.into()));
    }

    /// The status; none is success.
    pub fn status(&self) -> u16 {
        match self.get(option::STATUS) {
            Some([high, low, ..]) => u16::from_be_bytes([*high, *low]),
            _ => status::SUCCESS,
        }
    }
}

/// What makes bytes no DHCPv6 message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends in the middle.
    #[error("it is cut short")]
    Short,
    /// An option says that it is longer than what holds it.
    #[error("option {code} runs beyond the end")]
    Option {
        /// Which one.
        code: u16,
    },
}

/// A message between client and server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which it is.
    pub kind: u8,
    /// The exchange that it belongs to.
    pub id: [u8; 3],
    /// All else.
    pub options: Options,
}

impl Message {
    /// Decodes any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Message, DecodeError> {
        let ([kind, id @ ..], rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Short)?;
        Ok(Message { kind: *kind, id: *id, options: Options::decode(rest)? })
    }

    /// The message as it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.kind];
        bytes.extend(self.id);
        self.options.encode(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            options in prop::collection::vec((any::<u16>(), prop::collection::vec(any::<u8>(), 0..300)), 0..8),
            kind in any::<u8>(), id in any::<[u8; 3]>(),
        ) {
            let message = Message { kind, id, options: Options(options) };
            prop_assert_eq!(Message::decode(&message.encode()).unwrap(), message);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = Message::decode(&bytes) {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }
}
