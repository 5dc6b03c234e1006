use std::net::IpAddr;
use std::time::Duration;

use weft_kernel::Netns;

use crate::decode::{Ip, Packet, Transport};
use crate::report::Protocol;

/// A namespace that is watched.
#[derive(Debug)]
pub struct Place {
    /// What people call it: `pod default/web-0`, `node node1`, `underlay`.
    pub name: String,
    /// The network namespace.
    pub netns: Netns,
}

/// What to send, and from where.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Index of the place it is sent from.
    pub from: usize,
    /// Source address; the kernel's choice when absent.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: IpAddr,
    /// Index of the place it should arrive at, when that is one of them.
    pub to: Option<usize>,
    /// Its protocol.
    pub proto: Protocol,
    /// Destination port; not used for ICMP.
    pub port: u16,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// Which part of the exchange a packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The probe.
    Forward,
    /// Its answer.
    Reply,
    /// Word that it cannot be delivered: ICMP type and code, or `None` for a TCP reset.
    Refusal(Option<(u8, u8)>),
}

pub(crate) const MAGIC: usize = 16;
const SYN: u8 = 2;
const RST: u8 = 4;

/// By what the probe is recognised wherever it is, whatever address it has there.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    pub(crate) proto: Protocol,
    pub(crate) magic: [u8; MAGIC],
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) dst: IpAddr,
    /// The sequence number of the SYN, once it was seen at the source.
    pub(crate) tcp_seq: Option<u32>,
}

impl Signature {
    /// The packet's part, or `None` when it is somebody else's.
    pub(crate) fn role(&self, packet: &Packet<'_>) -> Option<Role> {
        match &packet.transport {
            Transport::Echo { reply, payload, .. } if self.proto == Protocol::Icmp => {
                self.carries(payload).then_some(if *reply { Role::Reply } else { Role::Forward })
            }
            Transport::Udp { sport, dport, payload } if self.proto == Protocol::Udp => {
                self.carries(payload).then(|| self.udp_role(&packet.ip, *sport, *dport))
            }
            Transport::Tcp { seq, ack, flags, .. } if self.proto == Protocol::Tcp => {
                let first = self.tcp_seq?;
                let answers = *ack == first.wrapping_add(1);
                match (flags & SYN != 0, flags & RST != 0) {
                    (true, _) if *seq == first => Some(Role::Forward),
                    (true, false) if answers => Some(Role::Reply),
                    (false, true) if answers => Some(Role::Refusal(None)),
                    _ => None,
                }
            }
            Transport::IcmpError { kind, code, about: Some(about) } => {
                let ours = self.role(about).is_some() || self.quoted(about);
                ours.then_some(Role::Refusal(Some((*kind, *code))))
            }
            _ => None,
        }
    }

    /// Whether it could be ours before the sequence number is known.
    pub(crate) fn candidate(&self, packet: &Packet<'_>) -> bool {
        match &packet.transport {
            Transport::Tcp { flags, .. } => self.proto == Protocol::Tcp && flags & (SYN | RST) != 0,
            Transport::IcmpError { .. } => true,
            _ => self.role(packet).is_some(),
        }
    }

    /// The sequence number, if this is the SYN as it leaves the source.
    pub(crate) fn syn(&self, packet: &Packet<'_>) -> Option<u32> {
        match &packet.transport {
            Transport::Tcp { sport, dport, seq, flags, .. } => {
                (*flags & (SYN | RST) == SYN && (*sport, *dport) == (self.sport, self.dport)).then_some(*seq)
            }
            _ => None,
        }
    }

    fn carries(&self, payload: &[u8]) -> bool {
        // nftables and old routers report the start only.
        let known = payload.len().min(MAGIC);
        payload.windows(MAGIC).any(|w| w == self.magic)
            || (known >= 8 && payload[..known] == self.magic[..known])
    }

    fn quoted(&self, about: &Packet<'_>) -> bool {
        about.ip.dst == self.dst && about.transport.ports() == Some((self.sport, self.dport))
    }

    fn udp_role(&self, ip: &Ip, sport: u16, dport: u16) -> Role {
        let to = (ip.dst, dport) == (self.dst, self.dport);
        let from = (ip.src, sport) == (self.dst, self.dport);
        // After both translations neither holds; then the own port tells.
        if (from || dport == self.sport) && !to { Role::Reply } else { Role::Forward }
    }
}
