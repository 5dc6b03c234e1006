//! Traffic control: queueing disciplines, their classes and filters.

mod codec;

use std::fmt;

use ipnet::IpNet;

pub(crate) use codec::{
    decode_class, decode_filter, decode_qdisc, encode_class, encode_filter, encode_qdisc, question,
};

/// The queueing discipline of packets that leave by a link (TC_H_ROOT).
const ROOT: u32 = 0xffff_ffff;
/// The place of `ingress` and `clsact` (TC_H_INGRESS).
const INGRESS: u32 = 0xffff_fff1;

/// A queueing discipline of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The link.
    pub ifindex: u32,
    /// Where it is: the root, the ingress or a class.
    pub parent: u32,
    /// Its own number, major in the upper half.
    pub handle: u32,
    /// What it does.
    pub kind: QdiscKind,
}

/// What a queueing discipline does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QdiscKind {
    /// One token bucket.
    Tbf(Tbf),
    /// A hierarchy of token buckets; packets that no filter classifies go to this minor.
    Htb {
        /// Minor number of the class.
        default: u32,
    },
    /// Filters for packets that come in.
    Ingress,
    /// Filters for packets that come in and that leave.
    Clsact,
    /// Another one, which can only be read and removed.
    Other(String),
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tbf {
    /// Bytes a second.
    pub rate: u64,
    /// Time that sending the whole burst takes at that rate, in [`ticks`].
    pub buffer: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

/// A class of `htb`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The link.
    pub ifindex: u32,
    /// The queueing discipline or class it is in.
    pub parent: u32,
    /// Its own number.
    pub handle: u32,
    /// Bytes a second, not exceeded.
    pub rate: u64,
    /// Time that sending the burst takes at that rate, in [`ticks`].
    pub buffer: u32,
}

/// A `u32` filter without hash tables of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// The link.
    pub ifindex: u32,
    /// The queueing discipline.
    pub parent: u32,
    /// Its number; 0 in a request lets the kernel choose.
    pub handle: u32,
    /// Filters of a lower number are asked first; those of one number are for one protocol.
    pub priority: u16,
    /// The packets it looks at (`ETH_P_*`).
    pub protocol: u16,
    /// Which packets.
    pub matches: Match,
    /// What is done with them.
    pub verdict: Verdict,
}

/// Packets of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// All.
    All,
    /// From this network.
    Source(IpNet),
    /// To this network.
    Destination(IpNet),
    /// Something else, read only.
    Other,
}

/// What a filter does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to this class.
    Class(u32),
    /// It leaves by this link instead, and goes no further here (`mirred egress redirect`).
    Redirect {
        /// The link.
        ifindex: u32,
        /// The class the filter names besides.
        class: u32,
    },
    /// Something else, read only.
    Other,
}

impl Qdisc {
    /// One at the root of a link, numbered 1.
    pub fn root(ifindex: u32, kind: QdiscKind) -> Qdisc {
        Qdisc { ifindex, parent: ROOT, handle: 1 << 16, kind }
    }

    /// `ingress` or `clsact` of a link, as `tc qdisc add dev X ingress` makes it.
    pub fn incoming(ifindex: u32, kind: QdiscKind) -> Qdisc {
        Qdisc { ifindex, parent: INGRESS, handle: 0xffff_0000, kind }
    }
}

impl fmt::Display for Qdisc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:x} on link {}", self.kind.name(), self.handle, self.ifindex)
    }
}

impl QdiscKind {
    /// The kernel's name of it.
    pub fn name(&self) -> &str {
        match self {
            QdiscKind::Tbf(_) => "tbf",
            QdiscKind::Htb { .. } => "htb",
            QdiscKind::Ingress => "ingress",
            QdiscKind::Clsact => "clsact",
            QdiscKind::Other(name) => name,
        }
    }
}

/// Microseconds in the unit in which the kernel is told times of traffic control: 64 ns
/// (PSCHED_SHIFT is 6 in every kernel since 2.6.31), and what no number can hold is the highest.
pub fn ticks(microseconds: u32) -> u32 {
    // Rust saturates where a float exceeds an integer.
    (f64::from(microseconds) * 15.625) as u32
}
