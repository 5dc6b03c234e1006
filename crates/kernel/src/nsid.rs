//! The numbers by which one namespace knows others (`IFLA_LINK_NETNSID` of a veth's peer).

use std::os::fd::{AsFd, AsRawFd};

use netlink_packet_core::Emitable;

use crate::wire::attributes;
use crate::{Netlink, Netns, Result};

/// struct rtgenmsg, padded.
const HEADER: usize = 4;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

struct Question([u8; HEADER + 8]);

impl Emitable for Question {
    fn buffer_len(&self) -> usize {
        self.0.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.0.len()].copy_from_slice(&self.0);
    }
}

impl Netlink {
    /// The number that this socket's namespace has for `other`: what [`crate::Link`] calls
    /// `peer_netnsid`. `None` when it has none, as when no link leads there.
    pub fn number_of(&mut self, other: &Netns) -> Result<Option<i32>> {
        let mut question = Question([0; HEADER + 8]);
        question.0[4..6].copy_from_slice(&8u16.to_ne_bytes());
        question.0[6..8].copy_from_slice(&NETNSA_FD.to_ne_bytes());
        question.0[8..12].copy_from_slice(&other.as_fd().as_raw_fd().to_ne_bytes());
        let decode = |payload: &[u8]| {
            let mut found = attributes(payload.get(HEADER..)?).filter(|(kind, _)| *kind == NETNSA_NSID);
            found.next().and_then(|(_, data)| data.first_chunk().map(|b| i32::from_ne_bytes(*b)))
        };
        let number = self.ask("find the number of", "a namespace", libc::RTM_GETNSID, &question, decode)?;
        Ok((number >= 0).then_some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LinkKind, NewLink, Op};

    #[test]
    fn the_number_of_a_namespace_is_that_of_the_link_which_leads_there() {
        let (here, there) = (Netns::create_unpinned().unwrap(), Netns::create_unpinned().unwrap());
        let mut netlink = Netlink::open_in(&here).unwrap();
        assert_eq!(netlink.number_of(&there).unwrap(), None);
        let kind = LinkKind::Veth {
            peer_name: "b".into(),
            peer_netns: Some(there.clone()),
            peer_mac: None,
            peer_mtu: None,
            peer_up: false,
        };
        netlink.apply(&Op::LinkAdd(NewLink::new("a", kind))).unwrap();
        let link = netlink.link("a").unwrap().unwrap();
        assert_eq!(netlink.number_of(&there).unwrap(), link.peer_netnsid);
        assert!(link.peer_netnsid.is_some());
    }
}
