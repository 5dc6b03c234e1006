//! Control packets (RFC 5880 4.1), without authentication.

use std::fmt;
use std::time::Duration;

use crate::message::Reader;

/// The length of a packet in bytes.
pub const LENGTH: usize = 24;

const VERSION: u8 = 1;
const POLL: u8 = 1 << 5;
const FINAL: u8 = 1 << 4;
const INDEPENDENT: u8 = 1 << 3;
const AUTHENTICATED: u8 = 1 << 2;
const DEMAND: u8 = 1 << 1;
const MULTIPOINT: u8 = 1;

/// Where a session stands (RFC 5880 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum State {
    /// It is held down on purpose, which says nothing about the path.
    AdminDown,
    /// The path is not known to carry packets.
    Down,
    /// The peer is heard and says that it does not hear.
    Init,
    /// Both hear one another.
    Up,
}

impl State {
    fn read(number: u8) -> State {
        match number & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    fn number(self) -> u8 {
        match self {
            State::AdminDown => 0,
            State::Down => 1,
            State::Init => 2,
            State::Up => 3,
        }
    }
}

/// Why a session changed its state last (RFC 5880 4.1).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
pub enum Diagnostic {
    /// It never fell.
    #[default]
    None,
    /// Nothing came within the detection time.
    Expired,
    /// Echo packets did not come back.
    EchoFailed,
    /// The other side said that it is down.
    Signalled,
    /// The forwarding plane was reset.
    ForwardingReset,
    /// The path is known to be broken, as by an interface without carrier.
    PathDown,
    /// What the path is made of is known to be broken.
    ConcatenatedPathDown,
    /// It is held down on purpose.
    Administrative,
    /// The way back is broken.
    ReverseConcatenatedPathDown,
    /// Any other number, up to 31.
    Other(u8),
}

impl Diagnostic {
    fn read(number: u8) -> Diagnostic {
        match number {
            0 => Diagnostic::None,
            1 => Diagnostic::Expired,
            2 => Diagnostic::EchoFailed,
            3 => Diagnostic::Signalled,
            4 => Diagnostic::ForwardingReset,
            5 => Diagnostic::PathDown,
            6 => Diagnostic::ConcatenatedPathDown,
            7 => Diagnostic::Administrative,
            8 => Diagnostic::ReverseConcatenatedPathDown,
            other => Diagnostic::Other(other),
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::Expired => 1,
            Diagnostic::EchoFailed => 2,
            Diagnostic::Signalled => 3,
            Diagnostic::ForwardingReset => 4,
            Diagnostic::PathDown => 5,
            Diagnostic::ConcatenatedPathDown => 6,
            Diagnostic::Administrative => 7,
            Diagnostic::ReverseConcatenatedPathDown => 8,
            Diagnostic::Other(number) => number & 31,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Diagnostic::None => "no diagnostic",
            Diagnostic::Expired => "nothing came within the detection time",
            Diagnostic::EchoFailed => "echo packets did not come back",
            Diagnostic::Signalled => "the peer signalled that the session is down",
            Diagnostic::ForwardingReset => "the forwarding plane was reset",
            Diagnostic::PathDown => "the path is down",
            Diagnostic::ConcatenatedPathDown => "a path that this one is made of is down",
            Diagnostic::Administrative => "administratively down",
            Diagnostic::ReverseConcatenatedPathDown => "a path that the way back is made of is down",
            Diagnostic::Other(number) => return write!(f, "diagnostic {number}"),
        })
    }
}

/// Why a packet is none that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It is shorter than a packet, or than it says.
    Short,
    /// It is not of version 1.
    Version,
    /// A field has a value that is not allowed.
    Value,
    /// It is authenticated, which was not agreed on.
    Authenticated,
}

/// A packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session changed its state last.
    pub diagnostic: Diagnostic,
    /// Where the sender's session stands.
    pub state: State,
    /// An answer is wanted, with `last` set.
    pub poll: bool,
    /// This is an answer.
    pub last: bool,
    /// The sender's detection outlives its control plane.
    pub independent: bool,
    /// The sender asks that nothing be sent periodically.
    pub demand: bool,
    /// So many intervals without a packet are the detection time; never 0.
    pub multiplier: u8,
    /// The sender's number of the session; never 0.
    pub mine: u32,
    /// The receiver's number of the session; 0 where the sender does not know it.
    pub yours: u32,
    /// The interval at which the sender wishes to send, in microseconds.
    pub transmit: u32,
    /// The shortest interval at which it takes packets, in microseconds; 0: it wants none.
    pub receive: u32,
    /// The shortest interval at which it takes echo packets, in microseconds; 0: it takes none.
    pub echo: u32,
}

impl Packet {
    /// Reads the payload of a datagram. What is behind the packet's end is passed over.
    pub fn decode(bytes: &[u8]) -> Result<Packet, Malformed> {
        Packet::fields(bytes).unwrap_or(Err(Malformed::Short))
    }

    /// `None`: too short.
    fn fields(bytes: &[u8]) -> Option<Result<Packet, Malformed>> {
        let mut reader = Reader(bytes);
        let [first, flags, multiplier, length] = reader.array()?;
        let [mine, yours, transmit, receive, echo] =
            [reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?, reader.u32()?];
        if first >> 5 != VERSION {
            return Some(Err(Malformed::Version));
        }
        let length = usize::from(length);
        if length < LENGTH || length > bytes.len() {
            return None;
        }
        let state = State::read(flags >> 6);
        // Who knows nobody cannot have heard anybody.
        let deaf = yours == 0 && matches!(state, State::Init | State::Up);
        if multiplier == 0 || flags & MULTIPOINT != 0 || mine == 0 || deaf {
            return Some(Err(Malformed::Value));
        }
        if flags & AUTHENTICATED != 0 {
            return Some(Err(Malformed::Authenticated));
        }
        Some(Ok(Packet {
            diagnostic: Diagnostic::read(first & 31),
            state,
            poll: flags & POLL != 0,
            last: flags & FINAL != 0,
            independent: flags & INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            mine,
            yours,
            transmit,
            receive,
            echo,
        }))
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; LENGTH] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let mut bytes = [0; LENGTH];
        bytes[0] = VERSION << 5 | self.diagnostic.number();
        bytes[1] = self.state.number() << 6
            | flag(self.poll, POLL)
            | flag(self.last, FINAL)
            | flag(self.independent, INDEPENDENT)
            | flag(self.demand, DEMAND);
        bytes[2] = self.multiplier;
        bytes[3] = LENGTH as u8;
        let words = [self.mine, self.yours, self.transmit, self.receive, self.echo];
        for (place, word) in bytes[4..].chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }
}

/// A field of microseconds.
pub(super) fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
