//! What a rule matches and does, as far as Weft writes such rules; anything else read back is
//! [`Expr::Other`], which equals nothing that was wanted.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use weft_model::Mac;

use super::field::{Change, Field};
use super::low::Low;
use super::ruleset::Family;

/// Source or destination of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where it comes from.
    Source,
    /// Where it goes.
    Destination,
}

/// The device a packet came in by or goes out by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// `iifname`.
    In,
    /// `oifname`.
    Out,
}

/// One match or statement of a rule. A rule's expressions all hold, from left to right.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expr {
    /// The address is (`negate`: is not) in a prefix.
    Address {
        /// Which address.
        side: Side,
        /// The prefix; a whole address has the full length.
        net: IpNet,
        /// Match what is outside.
        negate: bool,
    },
    /// The address is (`negate`: is not) in a named set of the same table.
    AddressIn {
        /// Which address.
        side: Side,
        /// The set's name.
        set: String,
        /// Whether the set holds IPv6 addresses.
        ipv6: bool,
        /// Match what is outside.
        negate: bool,
    },
    /// The device's name, exactly.
    Device {
        /// Which device.
        direction: Direction,
        /// Its name.
        name: String,
        /// Match all others.
        negate: bool,
    },
    /// The transport protocol's number (`meta l4proto`).
    Protocol {
        /// IANA number: 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6.
        number: u8,
        /// Match all others.
        negate: bool,
    },
    /// `meta mark & mask == value`.
    Mark {
        /// The value after masking.
        value: u32,
        /// The bits compared.
        mask: u32,
    },
    /// A TCP, UDP or SCTP port; follows a [`Expr::Protocol`].
    Port {
        /// Which port.
        side: Side,
        /// Its number.
        port: u16,
    },
    /// A SYN of TCP, answered or not (`tcp flags syn / syn,rst`); follows a [`Expr::Protocol`].
    TcpSyn,
    /// The identifier of an ICMP or ICMPv6 echo; follows a [`Expr::Protocol`].
    EchoId(u16),
    /// The source hardware address; in tables of the bridge family.
    EtherSource(Mac),
    /// The destination is an address of this node (`fib daddr type local`).
    LocalDestination,
    /// The source is an address of this node (`fib saddr type local`).
    LocalSource,
    /// The connection's state is one of these (`ct state`: 1 invalid, 2 established, 4 related, 8 new).
    State(u32),
    /// The connection has one of these bits (`ct status`: 0x10 snat, 0x20 dnat).
    Status(u32),
    /// Loads a field into registers. A single address in the first of them that is looked up in a
    /// set is an [`Expr::AddressIn`].
    Load {
        /// The first register, of 16 with four bytes each.
        at: u8,
        /// With what.
        field: Field,
    },
    /// What is in registers is (`negate`: is not) in a set of the same table.
    Lookup {
        /// The first register of the key.
        at: u8,
        /// The set's name.
        set: String,
        /// Match what is not in it.
        negate: bool,
    },
    /// Loads what a map has for the key in registers; the rule ends where it has nothing.
    Map {
        /// The first register of the key.
        at: u8,
        /// The map's name.
        map: String,
        /// The first register for the data.
        to: u8,
    },
    /// Does what a map has for the key in registers; nothing where it has nothing (`vmap`).
    VerdictMap {
        /// The first register of the key.
        at: u8,
        /// The map's name.
        map: String,
    },
    /// Changes a dynamic set or map by what is in registers.
    Change {
        /// How.
        change: Change,
        /// The set's name.
        set: String,
        /// The first register of the key.
        key: u8,
        /// The first register of a map's data; to delete there must be one too.
        data: Option<u8>,
        /// How long the element stays, in milliseconds; 0: as long as the set says.
        timeout: u64,
    },
    /// Destination NAT to the address in registers and the port in the one behind it.
    DnatTo {
        /// The address's first register.
        at: u8,
        /// Whether it is of IPv6.
        ipv6: bool,
    },
    /// `meta mark set meta mark & mask ^ xor`.
    SetMark {
        /// The bits that stay.
        mask: u32,
        /// The bits that are turned afterwards.
        xor: u32,
    },
    /// Answer that it is refused, and drop it: ICMP's port unreachable, or a reset of TCP.
    Reject {
        /// The reset; what is not TCP is only dropped.
        tcp_reset: bool,
    },
    /// Count packets and bytes.
    Counter,
    /// Source NAT to the address of the device it leaves by.
    Masquerade {
        /// Choose ports at random (`fully-random`).
        random_fully: bool,
    },
    /// Destination NAT to an address and port.
    Dnat(SocketAddr),
    /// Lower the segment size that a SYN offers to what the route there and back takes
    /// (`tcp option maxseg size set rt mtu`).
    ClampSegments,
    /// Go on in another chain and come back.
    Jump(String),
    /// Go on in another chain.
    Goto(String),
    /// Let it pass.
    Accept,
    /// Drop it.
    Drop,
    /// Go back to the calling chain, or to the base chain's policy.
    Return,
    /// Report every rule this packet meets from now on (`meta nftrace set 1`).
    Trace,
    /// Read back from the kernel and not understood: the expression's name.
    Other(String),
}

impl Expr {
    /// The source address is in `net`.
    pub fn saddr(net: IpNet) -> Expr {
        Expr::Address { side: Side::Source, net, negate: false }
    }

    /// The destination address is in `net`.
    pub fn daddr(net: IpNet) -> Expr {
        Expr::Address { side: Side::Destination, net, negate: false }
    }

    /// The source address is in the set.
    pub fn saddr_in(set: &str, ipv6: bool) -> Expr {
        Expr::AddressIn { side: Side::Source, set: set.into(), ipv6, negate: false }
    }

    /// The destination address is in the set.
    pub fn daddr_in(set: &str, ipv6: bool) -> Expr {
        Expr::AddressIn { side: Side::Destination, set: set.into(), ipv6, negate: false }
    }

    /// It came in by this device.
    pub fn iifname(name: &str) -> Expr {
        Expr::Device { direction: Direction::In, name: name.into(), negate: false }
    }

    /// It goes out by this device.
    pub fn oifname(name: &str) -> Expr {
        Expr::Device { direction: Direction::Out, name: name.into(), negate: false }
    }

    /// The transport protocol is this.
    pub fn l4proto(number: u8) -> Expr {
        Expr::Protocol { number, negate: false }
    }

    /// The opposite match; what cannot be negated stays as it is.
    pub fn negated(mut self) -> Expr {
        if let Expr::Address { negate, .. }
        | Expr::AddressIn { negate, .. }
        | Expr::Lookup { negate, .. }
        | Expr::Device { negate, .. }
        | Expr::Protocol { negate, .. } = &mut self
        {
            *negate = !*negate;
        }
        self
    }

    /// Decodes a rule as dumped by the kernel.
    pub(super) fn raise(family: Family, lows: &[Low]) -> Vec<Expr> {
        super::lower::raise(family, lows)
    }
}

impl fmt::Display for Expr {
    /// As `nft list` would print it, nearly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = |negate: &bool| if *negate { "!= " } else { "" };
        let addr = |side: &Side| if *side == Side::Source { "saddr" } else { "daddr" };
        let ip = |ipv6: bool| if ipv6 { "ip6" } else { "ip" };
        match self {
            Expr::Address { side, net, negate } => {
                let v6 = matches!(net, IpNet::V6(_));
                write!(f, "{} {} {}{}", ip(v6), addr(side), not(negate), short(net))
            }
            Expr::AddressIn { side, set, ipv6, negate } => {
                write!(f, "{} {} {}@{set}", ip(*ipv6), addr(side), not(negate))
            }
            Expr::Device { direction, name, negate } => {
                let key = if *direction == Direction::In { "iifname" } else { "oifname" };
                write!(f, "{key} {}\"{name}\"", not(negate))
            }
            Expr::Protocol { number, negate } => write!(f, "meta l4proto {}{number}", not(negate)),
            Expr::Mark { value, mask: u32::MAX } => write!(f, "meta mark {value:#x}"),
            Expr::Mark { value, mask } => write!(f, "meta mark & {mask:#x} == {value:#x}"),
            Expr::Port { side: Side::Source, port } => write!(f, "th sport {port}"),
            Expr::Port { side: Side::Destination, port } => write!(f, "th dport {port}"),
            Expr::TcpSyn => f.write_str("tcp flags syn / syn,rst"),
            Expr::ClampSegments => f.write_str("tcp option maxseg size set rt mtu"),
            Expr::EchoId(id) => write!(f, "icmp id {id}"),
            Expr::EtherSource(mac) => write!(f, "ether saddr {mac}"),
            Expr::LocalDestination => f.write_str("fib daddr type local"),
            Expr::LocalSource => f.write_str("fib saddr type local"),
            Expr::State(bits) => write!(f, "ct state {bits:#x}"),
            Expr::Status(bits) => write!(f, "ct status {bits:#x}"),
            Expr::Load { at, field } => write!(f, "r{at} = {field}"),
            Expr::Lookup { at, set, negate } => write!(f, "r{at} {}@{set}", not(negate)),
            Expr::Map { at, map, to } => write!(f, "r{to} = r{at} map @{map}"),
            Expr::VerdictMap { at, map } => write!(f, "r{at} vmap @{map}"),
            Expr::Change { change, set, key, data, timeout } => {
                let change = if *change == Change::Update { "update" } else { "delete" };
                write!(f, "{change} @{set} {{ r{key}")?;
                if *timeout != 0 {
                    write!(f, " timeout {timeout}ms")?;
                }
                data.map_or(Ok(()), |data| write!(f, " : r{data}"))?;
                f.write_str(" }")
            }
            Expr::DnatTo { at, .. } => write!(f, "dnat to r{at}"),
            Expr::SetMark { mask, xor } => write!(f, "meta mark set meta mark & {mask:#010x} ^ {xor:#010x}"),
            Expr::Reject { tcp_reset: false } => f.write_str("reject"),
            Expr::Reject { tcp_reset: true } => f.write_str("reject with tcp reset"),
            Expr::Dnat(to) => write!(f, "dnat to {to}"),
            Expr::Jump(chain) => write!(f, "jump {chain}"),
            Expr::Goto(chain) => write!(f, "goto {chain}"),
            Expr::Counter => f.write_str("counter"),
            Expr::Masquerade { random_fully: false } => f.write_str("masquerade"),
            Expr::Masquerade { random_fully: true } => f.write_str("masquerade fully-random"),
            Expr::Accept => f.write_str("accept"),
            Expr::Drop => f.write_str("drop"),
            Expr::Return => f.write_str("return"),
            Expr::Trace => f.write_str("meta nftrace set 1"),
            Expr::Other(name) => write!(f, "({name})"),
        }
    }
}

fn short(net: &IpNet) -> String {
    if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() }
}
