//! Neighbours (IP address → hardware address) and forwarding entries (hardware address → port or
//! tunnel peer).

use std::net::IpAddr;

use weft_model::Mac;

/// A neighbour entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Neighbour {
    /// The interface.
    pub ifindex: u32,
    /// The neighbour's address.
    pub ip: IpAddr,
    /// Its hardware address, where known.
    pub mac: Option<Mac>,
    /// `NUD_*` bits.
    pub state: u16,
}

impl Neighbour {
    /// An entry that never expires.
    pub fn permanent(ifindex: u32, ip: IpAddr, mac: Mac) -> Neighbour {
        Neighbour { ifindex, ip, mac: Some(mac), state: libc::NUD_PERMANENT }
    }
}

/// A forwarding database entry of a bridge or a VXLAN endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FdbEntry {
    /// The bridge port, the bridge itself or the VXLAN interface.
    pub ifindex: u32,
    /// The hardware address.
    pub mac: Mac,
    /// VXLAN: the peer's underlay address.
    pub dst: Option<IpAddr>,
    /// Read only: the bridge the port belongs to.
    pub master: Option<u32>,
    /// Never expires (NUD_PERMANENT).
    pub permanent: bool,
    /// The entry is the interface's own (NTF_SELF), not its bridge's.
    pub own_self: bool,
}

impl FdbEntry {
    /// A permanent entry of a VXLAN interface: `mac` is behind the peer at `dst`.
    pub fn tunnel(ifindex: u32, mac: Mac, dst: IpAddr) -> FdbEntry {
        FdbEntry { ifindex, mac, dst: Some(dst), master: None, permanent: true, own_self: true }
    }
}
