//! Virtual functions (SR-IOV), which are set through the interface of their physical function.

use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use weft_model::Mac;

use crate::wire::{Body, attributes, u16_at, u32_at};
use crate::{Netlink, Result};

/// A virtual function as its physical one has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vf {
    /// Its number, from 0 on.
    pub number: u32,
    /// Hardware address; all zero where the driver chooses one.
    pub mac: Mac,
    /// VLAN of its packets.
    pub vlan: VfVlan,
    /// Whether packets with other source addresses are dropped; none where unknown.
    pub spoof_check: Option<bool>,
    /// Whether it may take all packets and change its address; none where unknown.
    pub trust: Option<bool>,
    /// Its link; none where unknown.
    pub link_state: Option<VfLinkState>,
    /// Least rate in Mbit/s; 0 for none.
    pub min_tx_rate: u32,
    /// Largest rate in Mbit/s; 0 for no limit.
    pub max_tx_rate: u32,
}

/// The VLAN that a virtual function's packets are in without knowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VfVlan {
    /// VLAN identifier; 0 for none.
    pub id: u32,
    /// Priority, 0 to 7.
    pub qos: u32,
    /// Whether the tag is an outer one (802.1ad) instead of 802.1Q.
    pub outer: bool,
}

/// What the link of a virtual function depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfLinkState {
    /// On the physical link.
    Auto,
    /// On nothing: it is up.
    Enable,
    /// On nothing: it is down.
    Disable,
}

/// What to change on a virtual function; what is absent stays.
#[derive(Clone, Copy, Debug, Default)]
pub struct VfSet {
    /// Index of the physical function's interface.
    pub index: u32,
    /// Number of the virtual function.
    pub number: u32,
    /// Hardware address; all zero lets the driver choose one.
    pub mac: Option<Mac>,
    /// VLAN of its packets.
    pub vlan: Option<VfVlan>,
    /// Whether packets with other source addresses are dropped.
    pub spoof_check: Option<bool>,
    /// Whether it may take all packets and change its address.
    pub trust: Option<bool>,
    /// Its link.
    pub link_state: Option<VfLinkState>,
    /// Least and largest rate in Mbit/s; 0 for none.
    pub rates: Option<(u32, u32)>,
}

// `IFLA_VF_*` of linux/if_link.h, which libc does not have.
const VF_INFO: u16 = 1;
const VF_MAC: u16 = 1;
const VF_VLAN: u16 = 2;
const VF_SPOOFCHK: u16 = 4;
const VF_LINK_STATE: u16 = 5;
const VF_RATE: u16 = 6;
const VF_TRUST: u16 = 9;
const VF_VLAN_LIST: u16 = 12;
const VF_VLAN_INFO: u16 = 1;
/// The kernel's address fields have this many bytes (MAX_ADDR_LEN).
const LONGEST_MAC: usize = 32;
/// What the kernel says for a setting that the driver does not tell.
const UNKNOWN: u32 = u32::MAX;
const ETH_P_8021Q: u16 = 0x8100;
const ETH_P_8021AD: u16 = 0x88a8;

/// The message that changes a virtual function.
pub(crate) fn encode(set: &VfSet) -> Body {
    // struct ifinfomsg: no family, the index after four bytes.
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&set.index.to_ne_bytes());
    let mut body = Body::new(&header);
    body.nest(libc::IFLA_VFINFO_LIST, |list| {
        list.nest(VF_INFO, |info| encode_settings(set, info));
    });
    body
}

fn encode_settings(set: &VfSet, info: &mut Body) {
    let words = |words: &[u32]| -> Vec<u8> {
        std::iter::once(&set.number).chain(words).flat_map(|word| word.to_ne_bytes()).collect()
    };
    if let Some(mac) = set.mac {
        let mut value = words(&[]);
        value.extend_from_slice(&mac.0);
        value.resize(4 + LONGEST_MAC, 0);
        info.put(VF_MAC, &value);
    }
    match set.vlan {
        // Every driver has this one; only newer kernels and some drivers have the protocol.
        Some(VfVlan { id, qos, outer: false }) => {
            info.put(VF_VLAN, &words(&[id, qos]));
        }
        Some(VfVlan { id, qos, outer: true }) => {
            let mut value = words(&[id, qos]);
            value.extend_from_slice(&ETH_P_8021AD.to_be_bytes());
            value.extend_from_slice(&[0; 2]);
            info.nest(VF_VLAN_LIST, |list| {
                list.put(VF_VLAN_INFO, &value);
            });
        }
        None => {}
    }
    if let Some((min, max)) = set.rates {
        info.put(VF_RATE, &words(&[min, max]));
    }
    if let Some(on) = set.spoof_check {
        info.put(VF_SPOOFCHK, &words(&[u32::from(on)]));
    }
    if let Some(state) = set.link_state {
        info.put(VF_LINK_STATE, &words(&[state as u32]));
    }
    if let Some(on) = set.trust {
        info.put(VF_TRUST, &words(&[u32::from(on)]));
    }
}

/// The virtual functions out of a link message's payload.
pub(crate) fn decode(payload: &[u8]) -> Option<Vec<Vf>> {
    let body = payload.get(16..)?;
    let list = attributes(body).find(|(kind, _)| *kind == libc::IFLA_VFINFO_LIST).map(|(_, value)| value);
    let infos = list.into_iter().flat_map(attributes).filter(|(kind, _)| *kind == VF_INFO);
    Some(infos.filter_map(|(_, info)| decode_one(info)).collect())
}

fn decode_one(info: &[u8]) -> Option<Vf> {
    let mut vf = Vf::default();
    for (kind, value) in attributes(info) {
        let second = u32_at(value, 4);
        let known = || second.filter(|value| *value != UNKNOWN).map(|value| value != 0);
        match kind {
            VF_MAC => {
                vf.number = u32_at(value, 0)?;
                vf.mac = Mac(value.get(4..10)?.try_into().ok()?);
            }
            VF_VLAN => (vf.vlan.id, vf.vlan.qos) = (second?, u32_at(value, 8)?),
            VF_VLAN_LIST => {
                let first = attributes(value).next().and_then(|(_, info)| u16_at(info, 12)).map(u16::from_be);
                vf.vlan.outer = first.is_some_and(|protocol| protocol != ETH_P_8021Q && protocol != 0);
            }
            VF_RATE => (vf.min_tx_rate, vf.max_tx_rate) = (second?, u32_at(value, 8)?),
            VF_SPOOFCHK => vf.spoof_check = known(),
            VF_TRUST => vf.trust = known(),
            VF_LINK_STATE => {
                vf.link_state = match second? {
                    0 => Some(VfLinkState::Auto),
                    1 => Some(VfLinkState::Enable),
                    2 => Some(VfLinkState::Disable),
                    _ => None,
                };
            }
            _ => {}
        }
    }
    Some(vf)
}

impl Netlink {
    /// The virtual functions of the interface with this index; none where it has none.
    pub fn vfs(&mut self, index: u32) -> Result<Vec<Vf>> {
        let mut question = LinkMessage::default();
        question.header.index = index;
        let mask = vec![LinkExtentMask::Vf, LinkExtentMask::SkipStats];
        question.attributes.push(LinkAttribute::ExtMask(mask));
        self.ask("read virtual functions of link", &index.to_string(), libc::RTM_GETLINK, &question, decode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{append, messages};

    #[test]
    fn what_is_set_is_read() {
        let vlan = VfVlan { id: 7, qos: 3, outer: false };
        let set = VfSet {
            index: 4,
            number: 2,
            mac: Some(Mac([2, 0, 0, 0, 0, 9])),
            vlan: Some(vlan),
            spoof_check: Some(false),
            trust: Some(true),
            link_state: Some(VfLinkState::Enable),
            rates: Some((10, 100)),
        };
        let read = |set: &VfSet| {
            let mut bytes = Vec::new();
            append(&mut bytes, libc::RTM_SETLINK, 0, 1, &encode(set));
            decode(messages(&bytes).next().unwrap().payload).unwrap()
        };
        let expected = Vf {
            number: 2,
            mac: Mac([2, 0, 0, 0, 0, 9]),
            vlan,
            spoof_check: Some(false),
            trust: Some(true),
            link_state: Some(VfLinkState::Enable),
            min_tx_rate: 10,
            max_tx_rate: 100,
        };
        assert_eq!(read(&set), [expected]);
        let outer = VfSet { vlan: Some(VfVlan { outer: true, ..vlan }), ..set };
        assert!(read(&outer)[0].vlan.outer);
    }
}
