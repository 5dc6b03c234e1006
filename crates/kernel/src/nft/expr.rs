//! What a rule matches and does, as far as Weft writes such rules; anything else read back is
//! [`Expr::Other`], which equals nothing that was wanted.

use std::fmt;
use std::net::SocketAddr;

use ipnet::IpNet;
use weft_model::Mac;

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
