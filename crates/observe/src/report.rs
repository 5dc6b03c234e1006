//! What a trace found, as plain data that serialises to JSON.

use std::net::IpAddr;

use serde::Serialize;

/// The protocol of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// An echo request.
    Icmp,
    /// A connection.
    Tcp,
    /// A datagram.
    Udp,
}

impl std::str::FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Protocol, String> {
        match text {
            "icmp" => Ok(Protocol::Icmp),
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            other => Err(format!("unknown protocol {other:?}: use icmp, tcp or udp")),
        }
    }
}

/// Which way a frame passed a device, seen from its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It came in by the device.
    In,
    /// It went out by the device.
    Out,
}

/// One trace.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trace {
    /// Where the probe was sent.
    pub from: String,
    /// Where it should arrive, when that is a known place.
    pub to: Option<String>,
    /// Source address as sent.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: IpAddr,
    /// Its protocol.
    pub proto: Protocol,
    /// Its destination port; 0 for ICMP.
    pub port: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// The probe's way, in time order.
    pub forward: Vec<Hop>,
    /// The answer's way.
    pub reply: Vec<Hop>,
    /// Frames the kernel had no room for while watching: with any, a hop may be missing.
    pub frames_missed: u32,
}

/// How a trace ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Outcome {
    /// The probe arrived and the answer came back.
    Answered {
        /// From the first to the last observation, microseconds.
        us: u64,
    },
    /// Somebody answered that it cannot be delivered.
    Refused {
        /// Who: the source address of the ICMP error, or of the TCP reset.
        by: IpAddr,
        /// What it said: "port unreachable".
        said: String,
    },
    /// The probe arrived; nothing answered within the time.
    Unanswered,
    /// The probe or its answer vanished.
    Lost(Lost),
}

/// Where a packet vanished.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lost {
    /// Whether it was the answer.
    pub reply: bool,
    /// Where it was seen last; absent when it was never seen.
    pub last: Option<LastSeen>,
    /// Where it should have been seen next, as far as known.
    pub next: Option<String>,
    /// What the kernel's tables say there; the first is the likeliest cause.
    pub findings: Vec<Finding>,
}

/// The last observation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LastSeen {
    /// The place.
    pub place: String,
    /// The device.
    pub device: String,
    /// Which way.
    pub direction: Direction,
    /// Microseconds since the start.
    pub us: u64,
}

/// A fact that explains a loss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where.
    pub place: String,
    /// What kind of fact.
    pub kind: FindingKind,
    /// Whether it is inferred and not read from the kernel.
    pub guess: bool,
    /// In words.
    pub text: String,
}

/// The kinds of [`Finding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An nftables rule or policy dropped it.
    NftDrop,
    /// No route to the destination.
    NoRoute,
    /// A route that discards.
    Discarded,
    /// No hardware address for the next hop.
    Neighbour,
    /// No forwarding entry for the hardware address.
    NoFdbEntry,
    /// The time to live ran out.
    Ttl,
    /// The kernel does not forward.
    ForwardingOff,
    /// The source address is not expected on that device.
    ReversePath,
    /// A device is down.
    LinkDown,
    /// The kernel refused to send it.
    NotSent,
    /// Nothing in the tables explains it.
    Unexplained,
}

/// One passage of the packet through one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// Microseconds since the first observation.
    pub us: u64,
    /// In which place.
    pub place: String,
    /// By which device.
    pub device: String,
    /// What the device is: `veth`, `bridge`, `vxlan`, `loopback` or `device`.
    pub device_kind: String,
    /// Whether it is a port of this bridge.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Which way.
    pub direction: Direction,
    /// Source address and port.
    pub src: String,
    /// Destination address and port.
    pub dst: String,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The headers around it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<Encapsulation>,
    /// The place and device at the other end of a veth pair, when it is a known place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Addresses that changed since the hop before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nat: Vec<Nat>,
    /// Other ports of the bridge that got a copy, as it did not know the hardware address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flooded: Vec<String>,
    /// The frame is for another hardware address, so the network layer does not see it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ignored: bool,
    /// What the kernel's tables say here.
    pub decisions: Vec<Decision>,
}

/// The outer headers of an encapsulated packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Encapsulation {
    /// VXLAN network identifier.
    pub vni: u32,
    /// Outer source address.
    pub src: IpAddr,
    /// Outer destination address.
    pub dst: IpAddr,
    /// UDP destination port.
    pub port: u16,
    /// Outer time to live.
    pub ttl: u8,
}

/// A translated address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nat {
    /// `source` or `destination`.
    pub side: &'static str,
    /// Before.
    pub from: String,
    /// After.
    pub to: String,
}

/// What one kernel table says about the packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "table", rename_all = "kebab-case")]
pub enum Decision {
    /// The address belongs to this namespace.
    Local {
        /// Which address.
        address: IpAddr,
    },
    /// The routing table.
    Route {
        /// The entry's destination.
        to: String,
        /// Next hop; absent when the destination is on the link.
        via: Option<IpAddr>,
        /// Outgoing device.
        device: String,
        /// Routing table's number (254 main).
        id: u32,
    },
    /// The routing table has no way.
    NoRoute {
        /// To where.
        to: IpAddr,
        /// What the kernel answered.
        error: String,
    },
    /// A bridge's forwarding entries.
    Bridge {
        /// The bridge.
        bridge: String,
        /// The hardware address looked up.
        mac: String,
        /// Where it goes: a port, the bridge itself (up to this namespace), or unknown (to all
        /// ports).
        port: Option<String>,
    },
    /// The hardware address of the next hop.
    Neighbour {
        /// The next hop.
        address: IpAddr,
        /// On which device.
        device: String,
        /// Its hardware address, where known.
        mac: Option<String>,
        /// The entry's state: `permanent`, `reachable`, `incomplete`…, `none` without an entry.
        state: String,
    },
    /// The peer behind a hardware address of a VXLAN device.
    Tunnel {
        /// The VXLAN device.
        device: String,
        /// The hardware address looked up.
        mac: String,
        /// The peer's underlay address; absent without an entry.
        remote: Option<IpAddr>,
    },
}
