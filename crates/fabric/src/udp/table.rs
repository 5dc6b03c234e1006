//! Which peer has which addresses, and how big a packet its path takes.

use std::net::{IpAddr, SocketAddr};
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
    path_mtu: AtomicU32,
}

impl Peer {
    pub(crate) fn path_mtu(&self) -> Option<u32> {
        Some(self.path_mtu.load(Ordering::Relaxed)).filter(|mtu| *mtu > 0)
    }

    pub(crate) fn learn(&self, path_mtu: Option<u32>) {
        self.path_mtu.store(path_mtu.unwrap_or(0), Ordering::Relaxed);
    }
}

/// All peers, in sorted lists: quick to make anew for each change of thousands of peers. It is not
/// changed but replaced, except for what is learnt of paths.
#[derive(Debug, Default)]
pub(crate) struct Table {
    peers: Vec<Peer>,
    /// Each address and port once.
    senders: Vec<(SocketAddr, u32)>,
    v4: Prefixes<u32>,
    v6: Prefixes<u128>,
    /// Our own addresses on the device.
    pub addresses: Vec<IpAddr>,
}

impl Table {
    /// The table of `peers` beside our own prefixes `ours`. What `before` learnt of paths stays.
    /// Of two that name one prefix or one address the first has it.
    pub(crate) fn new(ours: &[IpNet], peers: &[UdpPeer], before: Option<&Table>) -> Table {
        let mut table = Table::default();
        for net in ours {
            table.insert(net, Owner::Us);
        }
        for (peer, index) in peers.iter().zip(0..) {
            table.peers.push(Peer { to: peer.address, path_mtu: AtomicU32::new(0) });
            table.senders.push((peer.address, index));
            for net in &peer.prefixes {
                table.insert(net, Owner::Peer(index));
            }
        }
        table.senders.sort_by_key(|(address, _)| *address);
        table.senders.dedup_by_key(|(address, _)| *address);
        table.v4.finish();
        table.v6.finish();
        let learnt = before.into_iter().flat_map(|old| &old.peers);
        for (old, mtu) in learnt.filter_map(|old| Some((old, old.path_mtu()?))) {
            if let Some(peer) = table.sender(old.to).and_then(|index| table.peer(index)) {
                peer.learn(Some(mtu));
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
        let at = self.senders.binary_search_by_key(&from, |(address, _)| *address).ok()?;
        Some(self.senders[at].1)
    }

    pub(crate) fn peer(&self, index: u32) -> Option<&Peer> {
        self.peers.get(index as usize)
    }

    pub(crate) fn peers(&self) -> &[Peer] {
        &self.peers
    }
}

/// Prefixes of one family: a list for each length, the longest first.
#[derive(Debug)]
struct Prefixes<K> {
    lengths: Vec<(u8, Vec<(K, Owner)>)>,
}

impl<K> Default for Prefixes<K> {
    fn default() -> Self {
        Prefixes { lengths: Vec::new() }
    }
}

impl<K: Ord + Copy> Prefixes<K> {
    fn insert(&mut self, length: u8, network: K, owner: Owner) {
        let at = self.lengths.partition_point(|(other, _)| *other > length);
        if self.lengths.get(at).is_none_or(|(other, _)| *other != length) {
            self.lengths.insert(at, (length, Vec::new()));
        }
        self.lengths[at].1.push((network, owner));
    }

    /// Sorts what was put in; of equal ones the first stays.
    fn finish(&mut self) {
        for (_, list) in &mut self.lengths {
            list.sort_by_key(|(network, _)| *network);
            list.dedup_by_key(|(network, _)| *network);
        }
    }

    fn find(&self, address: K, network: impl Fn(K, u8) -> K) -> Option<Owner> {
        self.lengths.iter().find_map(|(length, list)| {
            let wanted = network(address, *length);
            let at = list.binary_search_by_key(&wanted, |(network, _)| *network).ok()?;
            Some(list[at].1)
        })
    }
}
