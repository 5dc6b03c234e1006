//! Which peer has which addresses, and how big a packet its path takes.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;

/// A peer of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpPeer {
    /// Where its datagrams come from and go to.
    pub address: SocketAddr,
    /// The pod prefixes behind it.
    pub prefixes: Vec<IpNet>,
}

/// Who has an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This node.
    Us,
    /// The peer with this index.
    Peer(u32),
}

#[derive(Debug)]
pub(crate) struct Peer {
    pub to: SocketAddr,
    /// What was learnt of its path: bytes of an outer packet, 0 when nothing was.
    path_mtu: Arc<AtomicU32>,
}

impl Peer {
    pub(crate) fn path_mtu(&self) -> Option<u32> {
        Some(self.path_mtu.load(Ordering::Relaxed)).filter(|mtu| *mtu > 0)
    }

    pub(crate) fn learn(&self, path_mtu: Option<u32>) {
        self.path_mtu.store(path_mtu.unwrap_or(0), Ordering::Relaxed);
    }
}

/// All peers. It is not changed but replaced, except for what is learnt of paths.
#[derive(Debug, Default)]
pub(crate) struct Table {
    peers: Vec<Peer>,
    senders: HashMap<SocketAddr, u32>,
    v4: Prefixes<u32>,
    v6: Prefixes<u128>,
}

impl Table {
    /// The table of `peers` beside our own prefixes `ours`. What `before` learnt of paths stays.
    /// Of two that name one prefix or one address the first has it.
    pub(crate) fn new(ours: &[IpNet], peers: &[UdpPeer], before: Option<&Table>) -> Table {
        let mut table = Table::default();
        for net in ours {
            table.insert(net, Owner::Us);
        }
        for peer in peers {
            let index = table.peers.len() as u32;
            let learnt = before.and_then(|old| Some(&old.peers[*old.senders.get(&peer.address)? as usize]));
            let path_mtu = learnt.map(|old| old.path_mtu.clone()).unwrap_or_default();
            table.peers.push(Peer { to: peer.address, path_mtu });
            table.senders.entry(peer.address).or_insert(index);
            for net in &peer.prefixes {
                table.insert(net, Owner::Peer(index));
            }
        }
        table
    }

    fn insert(&mut self, net: &IpNet, owner: Owner) {
        match net {
            IpNet::V4(net) => self.v4.insert(net.prefix_len(), u32::from(net.network()), owner),
            IpNet::V6(net) => self.v6.insert(net.prefix_len(), u128::from(net.network()), owner),
        }
    }

    /// Who has the longest prefix that holds `address`.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<Owner> {
        match address {
            IpAddr::V4(address) => self.v4.find(u32::from(address), |key, length| {
                key & u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
            }),
            IpAddr::V6(address) => self.v6.find(u128::from(address), |key, length| {
                key & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
            }),
        }
    }

    /// The peer that sends from this address and port.
    pub(crate) fn sender(&self, from: SocketAddr) -> Option<u32> {
        self.senders.get(&from).copied()
    }

    pub(crate) fn peer(&self, index: u32) -> Option<&Peer> {
        self.peers.get(index as usize)
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }
}

/// Prefixes of one family: a map for each length, the longest first.
#[derive(Debug)]
struct Prefixes<K> {
    lengths: Vec<(u8, HashMap<K, Owner>)>,
}

impl<K> Default for Prefixes<K> {
    fn default() -> Self {
        Prefixes { lengths: Vec::new() }
    }
}

impl<K: Hash + Eq + Copy> Prefixes<K> {
    fn insert(&mut self, length: u8, network: K, owner: Owner) {
        let at = self.lengths.partition_point(|(other, _)| *other > length);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != length) {
            self.lengths.insert(at, (length, HashMap::new()));
        }
        self.lengths[at].1.entry(network).or_insert(owner);
    }

    fn find(&self, address: K, network: impl Fn(K, u8) -> K) -> Option<Owner> {
        self.lengths.iter().find_map(|(length, map)| map.get(&network(address, *length)).copied())
    }
}
