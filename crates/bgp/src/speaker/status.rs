//! What a speaker says of itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::bfd;

/// A speaker as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Where connections are taken.
    pub listens: Vec<SocketAddr>,
    /// Routes are held back until the neighbours have told theirs, after a restart.
    pub held_back: bool,
    /// How many prefixes there are.
    pub prefixes: usize,
    /// Connections that nobody here wanted, ever.
    pub strangers: u64,
    /// BFD, where a neighbour is watched by it.
    pub bfd: Option<bfd::Status>,
    /// The neighbours by name; those of a network with their address.
    pub neighbours: BTreeMap<Arc<str>, NeighbourStatus>,
}

/// A neighbour as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NeighbourStatus {
    /// Its address.
    pub address: IpAddr,
    /// `idle`, `connect`, `active`, `openSent`, `openConfirm` or `established`.
    pub state: String,
    /// For so many seconds it has been `established`, or not.
    pub since: u64,
    /// How often it has been `established`.
    pub established: u64,
    /// What BFD says of it: `up`, or what else; none where it is not watched.
    pub bfd: Option<String>,
    /// Why it was no longer `established`, the last time.
    pub last_fall: Option<String>,
    /// That, or why it did not come up later.
    pub last_error: Option<String>,
    /// What was agreed on, while `established`.
    pub terms: Option<Terms>,
    /// Paths that are taken from it.
    pub received: Counts,
    /// Routes that were refused, ever, by reason.
    pub refused: BTreeMap<String, u64>,
    /// UPDATEs that came, ever.
    pub updates: u64,
    /// Malformed attributes that came, ever, by attribute type.
    pub malformed: BTreeMap<u8, u64>,
    /// Families whose routes are kept though it is gone, or is only just back.
    pub stale: Families,
}

/// A number for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Of IPv4.
    pub ipv4: usize,
    /// Of IPv6.
    pub ipv6: usize,
}

/// Some of the families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Families {
    /// IPv4.
    pub ipv4: bool,
    /// IPv6.
    pub ipv6: bool,
}

/// What was agreed on with a neighbour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// Its AS.
    pub peer_as: u32,
    /// Its BGP identifier.
    pub peer_id: Ipv4Addr,
    /// Our address of the connection.
    pub local_address: IpAddr,
    /// Hold time in seconds.
    pub hold: u16,
    /// The families that routes may be of.
    pub families: Families,
    /// It keeps our routes while we restart, and we its own for so many seconds.
    pub graceful_restart: Option<u16>,
}

/// A path to a prefix, as people want to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// To where.
    pub prefix: IpNet,
    /// By whom: a neighbour's name, none for routes of our own.
    pub neighbour: Option<Arc<str>>,
    /// The next hop.
    pub next_hop: IpAddr,
    /// The AS path.
    pub as_path: String,
    /// ORIGIN.
    pub origin: String,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// COMMUNITIES.
    pub communities: Vec<String>,
    /// LARGE_COMMUNITIES.
    pub large_communities: Vec<String>,
    /// ORIGINATOR_ID.
    pub originator: Option<Ipv4Addr>,
    /// CLUSTER_LIST.
    pub cluster_list: Vec<Ipv4Addr>,
    /// The neighbour is gone and may come again.
    pub stale: bool,
    /// It is the best.
    pub best: bool,
    /// Packets may take it.
    pub used: bool,
    /// The step of the decision by which another is better.
    pub lost_by: Option<String>,
}

/// Which routes are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Of this neighbour.
    pub neighbour: Option<Arc<str>>,
    /// Inside of this prefix.
    pub within: Option<IpNet>,
    /// So many at most; 0: all.
    pub limit: usize,
}
