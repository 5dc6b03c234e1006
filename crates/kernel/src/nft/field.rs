//! What is loaded from a packet into registers, and looked up there together.

use std::fmt;

use super::expr::{Expr, Side};

/// Something that a register is loaded with. Registers have four bytes; a field takes as many as
/// it needs, and what is left over of the last is zero, as in the keys of sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// The source or destination address.
    Address {
        /// Which address.
        side: Side,
        /// Whether the packet is of IPv6; the table's family says so.
        ipv6: bool,
    },
    /// The transport protocol's number.
    Protocol,
    /// A port of TCP, UDP or SCTP.
    Port(Side),
    /// The packet's mark.
    Mark,
    /// `offset` and a random number below `modulus`, which is not 0; as [`super::Type::Mark`].
    Random {
        /// How many numbers there are.
        modulus: u32,
        /// The smallest of them.
        offset: u32,
    },
}

impl Field {
    /// How many registers it takes.
    pub fn registers(self) -> u8 {
        if matches!(self, Field::Address { ipv6: true, .. }) { 4 } else { 1 }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |side: &Side| if *side == Side::Source { "s" } else { "d" };
        match self {
            Field::Address { side: s, ipv6: false } => write!(f, "ip {}addr", side(s)),
            Field::Address { side: s, ipv6: true } => write!(f, "ip6 {}addr", side(s)),
            Field::Protocol => f.write_str("meta l4proto"),
            Field::Mark => f.write_str("meta mark"),
            Field::Port(s) => write!(f, "th {}port", side(s)),
            Field::Random { modulus, offset: 0 } => write!(f, "numgen random mod {modulus}"),
            Field::Random { modulus, offset } => write!(f, "numgen random mod {modulus} offset {offset}"),
        }
    }
}

/// What is done to a set by a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Adds an element where there is none, else its time starts again; its data stay. Where the
    /// set is full the rule ends here.
    Update,
    /// Deletes the element, if there is one.
    Delete,
}

impl Change {
    /// `NFT_DYNSET_OP_*`.
    pub(super) fn number(self) -> u32 {
        match self {
            Change::Update => 1,
            Change::Delete => 2,
        }
    }

    pub(super) fn from_number(number: u32) -> Option<Change> {
        [Change::Update, Change::Delete].into_iter().find(|change| change.number() == number)
    }
}

impl Expr {
    /// Loads `fields` one after the other into the registers from `at` on, as the key of a set of
    /// several fields is laid out; says which register comes next.
    pub fn load(at: u8, fields: impl IntoIterator<Item = Field>) -> (Vec<Expr>, u8) {
        let (mut out, mut next) = (Vec::new(), at);
        for field in fields {
            out.push(Expr::Load { at: next, field });
            next += field.registers();
        }
        (out, next)
    }
}
