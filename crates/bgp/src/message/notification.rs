//! NOTIFICATION: why a session ends.

use std::fmt;

use super::wire::Reader;

/// An error code and its subcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reason(
    /// The error code.
    pub u8,
    /// The subcode.
    pub u8,
);

macro_rules! reasons {
    ($($name:ident = ($code:literal, $subcode:literal), $text:literal;)*) => {
        impl Reason {
            $(#[doc = concat!("\"", $text, "\"")] pub const $name: Reason = Reason($code, $subcode);)*

            /// What the standards call it.
            pub fn text(self) -> &'static str {
                match self {
                    $(Reason::$name => $text,)*
                    Reason(1, _) => "message header error",
                    Reason(2, _) => "OPEN message error",
                    Reason(3, _) => "UPDATE message error",
                    Reason(6, _) => "cease",
                    _ => "unknown error",
                }
            }
        }
    };
}

reasons! {
    NOT_SYNCHRONISED = (1, 1), "connection not synchronised";
    BAD_LENGTH = (1, 2), "bad message length";
    BAD_TYPE = (1, 3), "bad message type";
    OPEN = (2, 0), "malformed OPEN";
    VERSION = (2, 1), "unsupported version number";
    PEER_AS = (2, 2), "bad peer AS";
    IDENTIFIER = (2, 3), "bad BGP identifier";
    PARAMETER = (2, 4), "unsupported optional parameter";
    HOLD_TIME = (2, 6), "unacceptable hold time";
    CAPABILITY = (2, 7), "unsupported capability";
    ATTRIBUTE_LIST = (3, 1), "malformed attribute list";
    UNRECOGNISED = (3, 2), "unrecognised well-known attribute";
    OPTIONAL_ATTRIBUTE = (3, 9), "optional attribute error";
    NETWORK = (3, 10), "invalid network field";
    HOLD_TIMER = (4, 0), "hold timer expired";
    FSM = (5, 0), "finite state machine error";
    IN_OPEN_SENT = (5, 1), "unexpected message in OpenSent";
    IN_OPEN_CONFIRM = (5, 2), "unexpected message in OpenConfirm";
    IN_ESTABLISHED = (5, 3), "unexpected message in Established";
    MAX_PREFIXES = (6, 1), "maximum number of prefixes reached";
    SHUTDOWN = (6, 2), "administrative shutdown";
    DECONFIGURED = (6, 3), "peer de-configured";
    ADMINISTRATIVE_RESET = (6, 4), "administrative reset";
    REJECTED = (6, 5), "connection rejected";
    CONFIGURATION = (6, 6), "other configuration change";
    COLLISION = (6, 7), "connection collision resolution";
    RESOURCES = (6, 8), "out of resources";
    HARD_RESET = (6, 9), "hard reset";
    BFD_DOWN = (6, 10), "BFD down";
    REFRESH_LENGTH = (7, 1), "invalid ROUTE-REFRESH message length";
    SEND_HOLD = (8, 0), "send hold timer expired";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}/{})", self.text(), self.0, self.1)
    }
}

/// A NOTIFICATION message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Why.
    pub reason: Reason,
    /// What goes with the reason: the offending field, a message to people.
    pub data: Box<[u8]>,
}

/// The longest text that a shutdown carries, in bytes (RFC 9003).
pub const SHUTDOWN_TEXT: usize = 255;

impl Notification {
    /// One with data.
    pub fn new(reason: Reason, data: &[u8]) -> Notification {
        Notification { reason, data: data.into() }
    }

    /// A shutdown or reset with a text for the people at the other end (RFC 9003); a longer text is cut at a
    /// character's boundary.
    pub fn with_text(reason: Reason, text: &str) -> Notification {
        let text = &text[..text.floor_char_boundary(SHUTDOWN_TEXT)];
        let data = if text.is_empty() {
            Vec::new()
        } else {
            [&[u8::try_from(text.len()).unwrap_or(u8::MAX)], text.as_bytes()].concat()
        };
        Notification { reason, data: data.into() }
    }

    /// The text of a shutdown or reset. Control characters are for nobody's terminal and left out.
    pub fn text(&self) -> Option<String> {
        if !matches!(self.reason, Reason::SHUTDOWN | Reason::ADMINISTRATIVE_RESET) {
            return None;
        }
        let mut data = Reader(&self.data);
        let length = data.u8()?;
        let text = str::from_utf8(data.take(length.into())?).ok()?;
        Some(text.chars().filter(|c| !c.is_control()).collect()).filter(|text: &String| !text.is_empty())
    }

    /// This one as a hard reset (RFC 8538): the session ends, and its routes with it.
    pub fn hard(&self) -> Notification {
        let data = [&[self.reason.0, self.reason.1], &*self.data].concat();
        Notification { reason: Reason::HARD_RESET, data: data.into() }
    }

    /// What a hard reset is for; every other is for itself.
    pub fn inner(&self) -> Notification {
        match (self.reason, &*self.data) {
            (Reason::HARD_RESET, [code, subcode, data @ ..]) => {
                Notification::new(Reason(*code, *subcode), data)
            }
            _ => self.clone(),
        }
    }

    pub(super) fn decode(body: &[u8]) -> Option<Notification> {
        let mut body = Reader(body);
        let reason = Reason(body.u8()?, body.u8()?);
        Some(Notification { reason, data: body.0.into() })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.reason.0, self.reason.1]);
        out.extend(&*self.data);
    }
}

impl From<Reason> for Notification {
    fn from(reason: Reason) -> Notification {
        Notification::new(reason, &[])
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reason == Reason::HARD_RESET && self.data.len() >= 2 {
            return write!(f, "hard reset: {}", self.inner().reason);
        }
        match self.text() {
            Some(text) => write!(f, "{}: {text}", self.reason),
            None => write!(f, "{}", self.reason),
        }
    }
}

impl std::error::Error for Notification {}
