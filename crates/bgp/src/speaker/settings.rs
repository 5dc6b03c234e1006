//! What a speaker is to do: all of it, as one value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::PerFamily;
use crate::bfd::Intervals;
use crate::message::{AddPath, Attributes};
use crate::policy::Policy;
use crate::session::PeerAs;

/// BGP's port.
pub const PORT: u16 = 179;

/// The desired state of a [`super::Speaker`].
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Our AS.
    pub local_as: u32,
    /// Our BGP identifier.
    pub id: Ipv4Addr,
    /// Where connections are taken; the addresses need not be the machine's yet.
    pub listen: Vec<SocketAddr>,
    /// The cluster that we reflect routes in, where that is not our identifier.
    pub cluster_id: Option<Ipv4Addr>,
    /// So many next hops of equally good paths are told for one prefix.
    pub multipath: usize,
    /// Our own addresses: nobody's next hop for us.
    pub addresses: BTreeSet<IpAddr>,
    /// Our own next hop of a family on sessions over the other one.
    pub next_hop: PerFamily<Option<IpAddr>>,
    /// The neighbours by name.
    pub neighbours: BTreeMap<Arc<str>, Neighbour>,
    /// Routes of our own. Those whose next hop is unspecified have our own address towards each neighbour.
    pub originated: BTreeMap<IpNet, Attributes>,
    /// We have restarted while packets went on by the old routes (RFC 4724): nothing is decided before all neighbours
    /// have told theirs, or until this time is over. Read at the start alone.
    pub restarted: Option<Duration>,
}

impl Settings {
    /// Those of a speaker without neighbours that listens nowhere.
    pub fn new(local_as: u32, id: Ipv4Addr) -> Settings {
        Settings {
            local_as,
            id,
            listen: Vec::new(),
            cluster_id: None,
            multipath: 64,
            addresses: BTreeSet::new(),
            next_hop: PerFamily::default(),
            neighbours: BTreeMap::new(),
            originated: BTreeMap::new(),
            restarted: None,
        }
    }
}

/// Who a neighbour is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// One at an address.
    Address {
        /// The address.
        ip: IpAddr,
        /// The port to dial.
        port: u16,
    },
    /// Anybody of a network, who has to dial.
    Prefix {
        /// The network.
        net: IpNet,
        /// So many at most.
        limit: usize,
    },
}

impl Remote {
    /// Its addresses.
    pub(super) fn net(&self) -> IpNet {
        match self {
            Remote::Address { ip, .. } => IpNet::from(*ip),
            Remote::Prefix { net, .. } => net.trunc(),
        }
    }
}

/// How far away a neighbour may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// On the same link.
    Single,
    /// So many hops.
    Hops(u8),
    /// So many hops, and whatever came from farther is dropped (RFC 5082): the neighbour must do the same. 1 is the
    /// same link.
    Security(u8),
}

/// The key of TCP MD5 signatures (RFC 2385).
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Arc<str>);

impl Password {
    /// `None` where it is empty or longer than the kernel takes.
    pub fn new(password: &str) -> Option<Password> {
        (1..=weft_kernel::tcp::MD5_KEY).contains(&password.len()).then(|| Password(password.into()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How a neighbour is watched by BFD; it must be on the same link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// How often packets go and come.
    pub intervals: Intervals,
    /// The session is only while BFD says that packets pass, or that the neighbour has no BFD for now. Otherwise it falls
    /// when they pass no longer, and may come again.
    pub strict: bool,
}

/// A neighbour, or many alike.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbour {
    /// Who.
    pub remote: Remote,
    /// Its AS.
    pub peer_as: PeerAs,
    /// Our address towards it; otherwise the kernel chooses.
    pub local_address: Option<IpAddr>,
    /// It is to dial.
    pub passive: bool,
    /// The hold time to propose, in seconds: 0, or at least 3.
    pub hold: u16,
    /// How far away it may be.
    pub ttl: Ttl,
    /// What TCP segments are signed with.
    pub password: Option<Password>,
    /// The families to speak of.
    pub families: PerFamily<bool>,
    /// We offer graceful restart, and ask for so much time to come back; we keep the neighbour's routes for as long as
    /// it asks.
    pub graceful_restart: Option<Duration>,
    /// And so long as the last choice after that (RFC 9494).
    pub long_lived: Option<Duration>,
    /// Its routes are reflected to others of our AS, and theirs to it.
    pub reflector_client: bool,
    /// Which routes are taken from it. Without one none is, from another AS (RFC 8212); inside all are.
    pub import: Option<Arc<Policy>>,
    /// Which routes are told to it; the same holds.
    pub export: Option<Arc<Policy>>,
    /// Routes from other ASes are told inside with our own address as their next hop.
    pub next_hop_self: bool,
    /// Routes that others told are told to another AS with their next hop as it is.
    pub keep_next_hop: bool,
    /// So often may our own AS be in the paths of its routes.
    pub own_as: usize,
    /// More prefixes than these end the session, until it is reset.
    pub max_prefixes: PerFamily<Option<usize>>,
    /// Several paths to a prefix.
    pub add_path: PerFamily<AddPath>,
    /// It is watched by BFD.
    pub bfd: Option<Watched>,
}

impl Neighbour {
    /// One on our link, with usual times, without policy and limits.
    pub fn new(remote: Remote, peer_as: PeerAs) -> Neighbour {
        Neighbour {
            remote,
            peer_as,
            local_address: None,
            passive: false,
            hold: 90,
            ttl: Ttl::Single,
            password: None,
            families: PerFamily { ipv4: true, ipv6: true },
            graceful_restart: None,
            long_lived: None,
            reflector_client: false,
            import: None,
            export: None,
            next_hop_self: false,
            keep_next_hop: false,
            own_as: 0,
            max_prefixes: PerFamily::default(),
            add_path: PerFamily::default(),
            bfd: None,
        }
    }

    /// Whether a session by these settings can go on by the others: only what is not told to the neighbour differs.
    pub(super) fn goes_on_as(&self, other: &Neighbour) -> bool {
        let rest = Neighbour {
            import: self.import.clone(),
            export: self.export.clone(),
            reflector_client: self.reflector_client,
            next_hop_self: self.next_hop_self,
            keep_next_hop: self.keep_next_hop,
            own_as: self.own_as,
            max_prefixes: self.max_prefixes,
            bfd: self.bfd,
            ..other.clone()
        };
        *self == rest
    }
}
