//! What the tunnel carried, and what it dropped and why.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Why a packet was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// As a word for metrics and messages: "stranger".
            pub fn name(self) -> &'static str {
                match self { $(Reason::$name => $text,)* }
            }
        }
    };
}

reasons! {
    /// In: a datagram from an address and port that no peer has.
    Stranger => "stranger",
    /// In: the inner source lies in none of the sender's prefixes.
    Spoofed => "spoofed",
    /// In: the inner destination is none of ours.
    NotOurs => "not-ours",
    /// In: an address that no packet may have: loopback, multicast, unspecified.
    Martian => "martian",
    /// In: shorter than its headers say.
    Truncated => "truncated",
    /// In: longer than its headers say.
    Oversized => "oversized",
    /// Neither IPv4 nor IPv6, or a header that contradicts itself.
    Malformed => "malformed",
    /// IPv4 options, IPv6 hop-by-hop options, routing header or destination options.
    Options => "options",
    /// A fragment that no packet can be made of.
    Fragment => "fragment",
    /// In: a wrong IPv4 header checksum.
    Checksum => "checksum",
    /// In: the underlay marked it as congested, which the inner packet cannot say (RFC 6040).
    Congestion => "congestion",
    /// Out: no peer has the destination.
    NoRoute => "no-route",
    /// Out: to a group, such as the host's own neighbour discovery; no tunnel carries them.
    Multicast => "multicast",
    /// Out: the TTL or hop limit ended here.
    Expired => "expired",
    /// Out: too big for the path and not to be fragmented.
    TooBig => "too-big",
    /// Out: the underlay did not take it.
    Send => "send",
    /// In: the device did not take it.
    Device => "device",
}

const REASONS: usize = Reason::ALL.len();

/// What happened so far; the numbers only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets sent to peers.
    pub sent_packets: u64,
    /// Their bytes, without the outer headers.
    pub sent_bytes: u64,
    /// Messages given to the underlay's socket for them: trains and single packets.
    pub sent_trains: u64,
    /// Packets taken in from peers.
    pub received_packets: u64,
    /// Their bytes, without the outer headers.
    pub received_bytes: u64,
    /// Frames given to the host for them: joined trains and single packets.
    pub received_frames: u64,
    /// ICMP errors sent to sources.
    pub icmp_errors: u64,
    dropped: [u64; REASONS],
}

impl Counters {
    /// How many packets were dropped for this reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Adds one dropped packet.
    pub(crate) fn drop(&mut self, reason: Reason) {
        self.dropped[reason as usize] += 1;
    }

    /// Adds those of another thread.
    pub(crate) fn add(&mut self, other: &Counters) {
        for (mine, theirs) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs;
        }
        for (mine, theirs) in self.dropped.iter_mut().zip(other.dropped) {
            *mine += theirs;
        }
    }

    fn fields(&self) -> [u64; 7] {
        [
            self.sent_packets,
            self.sent_bytes,
            self.sent_trains,
            self.received_packets,
            self.received_bytes,
            self.received_frames,
            self.icmp_errors,
        ]
    }

    fn fields_mut(&mut self) -> [&mut u64; 7] {
        [
            &mut self.sent_packets,
            &mut self.sent_bytes,
            &mut self.sent_trains,
            &mut self.received_packets,
            &mut self.received_bytes,
            &mut self.received_frames,
            &mut self.icmp_errors,
        ]
    }
}

/// One thread's counters as the others see them.
#[derive(Debug)]
pub(crate) struct Published([AtomicU64; 7 + REASONS]);

impl Published {
    pub(crate) fn new() -> Published {
        Published(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    pub(crate) fn store(&self, counters: &Counters) {
        for (place, value) in self.0.iter().zip(counters.fields().into_iter().chain(counters.dropped)) {
            place.store(value, Ordering::Relaxed);
        }
    }

    pub(crate) fn load(&self) -> Counters {
        let mut counters = Counters::default();
        let (fields, dropped) = self.0.split_at(7);
        for (value, place) in counters.fields_mut().into_iter().zip(fields) {
            *value = place.load(Ordering::Relaxed);
        }
        for (value, place) in counters.dropped.iter_mut().zip(dropped) {
            *value = place.load(Ordering::Relaxed);
        }
        counters
    }
}
