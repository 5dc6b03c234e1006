//! A rule of iptables as a plain value.

use std::net::IpAddr;

use ipnet::IpNet;

/// A condition that a rule has or, with `not`, the opposite of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Is<T> {
    /// Whether it must not hold (`!`).
    pub not: bool,
    /// What is compared with.
    pub value: T,
}

impl<T> Is<T> {
    /// It holds.
    pub fn so(value: T) -> Is<T> {
        Is { not: false, value }
    }

    /// It does not hold.
    pub fn not(value: T) -> Is<T> {
        Is { not: true, value }
    }
}

/// One rule: all that it names must hold, then its target is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `-i`; a `+` at the end stands for any rest.
    pub in_interface: Option<Is<String>>,
    /// `-o`.
    pub out_interface: Option<Is<String>>,
    /// `-p`, by its IANA number.
    pub protocol: Option<Is<u8>>,
    /// `-s`; the bits behind the prefix are zero.
    pub source: Option<Is<IpNet>>,
    /// `-d`.
    pub destination: Option<Is<IpNet>>,
    /// `-m`, in their order.
    pub matches: Vec<Match>,
    /// `-j`; none counts only.
    pub target: Option<Target>,
}

/// Which ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortKind {
    /// `--sport`, `--sports`.
    Source,
    /// `--dport`, `--dports`.
    Destination,
    /// `--ports`: either.
    Either,
}

/// Connection states, as bits of [`Match::State`] (`XT_CONNTRACK_STATE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtState(pub u16);

impl CtState {
    /// `INVALID`.
    pub const INVALID: CtState = CtState(1);
    /// `ESTABLISHED`.
    pub const ESTABLISHED: CtState = CtState(1 << 1);
    /// `RELATED`.
    pub const RELATED: CtState = CtState(1 << 2);
    /// `NEW`.
    pub const NEW: CtState = CtState(1 << 3);
}

/// Kinds of addresses, as bits of [`Match::AddressKind`] (one shifted by `RTN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressKind(pub u16);

impl AddressKind {
    /// `LOCAL`: an address of this node.
    pub const LOCAL: AddressKind = AddressKind(1 << 2);
}

/// One `-m` with its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `-m comment`.
    Comment(String),
    /// `-m tcp`, `udp` or `sctp`, by the rule's protocol: a port or a range of them.
    Port {
        /// Source or destination.
        kind: PortKind,
        /// First and last.
        range: Is<(u16, u16)>,
    },
    /// `-m tcp`, `udp` or `sctp`, by the rule's protocol, without any option.
    AnyPort,
    /// `-m multiport`: at most 15 ports, a range counts for two.
    MultiPort {
        /// Which.
        kind: PortKind,
        /// Ranges; first and last are equal for one port.
        ports: Is<Vec<(u16, u16)>>,
    },
    /// `-m addrtype`.
    AddressKind {
        /// `--src-type`.
        source: Option<Is<AddressKind>>,
        /// `--dst-type`.
        destination: Option<Is<AddressKind>>,
    },
    /// `-m conntrack --ctstate`.
    State(Is<CtState>),
    /// `-m mark`: the mark under the mask is the value.
    Mark {
        /// The value.
        value: Is<u32>,
        /// The bits compared.
        mask: u32,
    },
    /// `-m statistic --mode random`: so many times in 2^31 packets.
    Random(u32),
    /// `-m recent --rsource`: who was here within so many seconds (`--rcheck --reap`), or without a number that he is
    /// (`--set`).
    Recent {
        /// Of the list.
        name: String,
        /// How long ago he may have been here.
        seconds: Option<u32>,
        /// Which bits of his address count: here all.
        mask: IpAddr,
    },
    /// Words that only iptables itself understands.
    Words(Vec<String>),
}

/// What happens to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `ACCEPT`.
    Accept,
    /// `DROP`.
    Drop,
    /// `RETURN`.
    Return,
    /// Another chain.
    Jump(String),
    /// Another chain, without coming back (`-g`).
    Goto(String),
    /// `MASQUERADE`.
    Masquerade,
    /// `MASQUERADE --random-fully`.
    MasqueradeRandomly,
    /// `REJECT` with the ICMP message that a port is unreachable, of the rule's family.
    Refuse {
        /// Which family.
        ipv6: bool,
    },
    /// `DNAT`.
    Dnat(IpAddr, u16),
    /// `MARK --set-xmark`: clears the bits of the mask and flips those of the value.
    Mark {
        /// The value.
        value: u32,
        /// The mask.
        mask: u32,
    },
    /// Words that only iptables itself understands, the target's name first.
    Words(Vec<String>),
}

impl Rule {
    /// A rule that jumps to another chain.
    pub fn jump(chain: &str) -> Rule {
        Rule::to(Target::Jump(chain.to_owned()))
    }

    /// A rule that matches every packet.
    pub fn to(target: Target) -> Rule {
        Rule { target: Some(target), ..Rule::default() }
    }

    /// With one more match.
    pub fn matching(mut self, one: Match) -> Rule {
        self.matches.push(one);
        self
    }

    /// With a comment; more than iptables' 255 bytes are cut.
    pub fn comment(self, text: &str) -> Rule {
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        self.matching(Match::Comment(text[..end].to_owned()))
    }

    /// From addresses of `net`. One of length 0 is every address: no condition.
    pub fn from(mut self, net: impl Into<IpNet>) -> Rule {
        self.source = condition(net.into()).map(Is::so);
        self
    }

    /// To addresses of `net`.
    pub fn towards(mut self, net: impl Into<IpNet>) -> Rule {
        self.destination = condition(net.into()).map(Is::so);
        self
    }

    /// Of a protocol.
    pub fn protocol(mut self, number: u8) -> Rule {
        self.protocol = Some(Is::so(number));
        self
    }

    /// To this port; the rule must have a protocol.
    pub fn to_port(self, port: u16) -> Rule {
        self.matching(Match::Port { kind: PortKind::Destination, range: Is::so((port, port)) })
    }

    /// The chain that it jumps to.
    pub fn jumps_to(&self) -> Option<&str> {
        match &self.target {
            Some(Target::Jump(chain) | Target::Goto(chain)) => Some(chain),
            _ => None,
        }
    }

    /// Whether the kernel can be told of it without iptables.
    pub(super) fn is_plain(&self) -> bool {
        !self.matches.iter().any(|m| matches!(m, Match::Words(_)))
            && !matches!(self.target, Some(Target::Words(_)))
    }
}

/// A prefix as a condition: iptables drops what always holds.
pub(super) fn condition(net: IpNet) -> Option<IpNet> {
    (net.prefix_len() > 0).then(|| net.trunc())
}
