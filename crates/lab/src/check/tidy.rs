use std::cell::RefCell;
use std::net::IpAddr;

use weft_kernel::{Neighbour, Netlink, Op};

/// The device by which a pod sees the other pods of its node.
const DEVICE: &str = "eth0";
/// Fewer pods than this on one node leave room enough.
const CROWDED: usize = 12;

/// Removes the neighbour entries that probing leaves in pods. All network namespaces of a
/// machine share one table of some thousand entries (`gc_thresh3`), in which new ones keep their
/// place for five seconds: every pod with every other of its node would fill it, and packets of
/// anybody on the machine would be dropped.
#[derive(Default)]
pub(super) struct Tidy {
    /// By space; a space without the device has nothing to tidy.
    spaces: Vec<Option<RefCell<(Netlink, u32)>>>,
}

impl Tidy {
    /// Whether nodes hold so many pods that it matters.
    pub(super) fn matters(pods: usize, nodes: usize) -> bool {
        pods > CROWDED * nodes.max(1)
    }

    /// Takes in the next space; the calling thread is in its namespace.
    pub(super) fn add(&mut self) {
        let open = || {
            let mut netlink = Netlink::open().ok()?;
            let index = netlink.link(DEVICE).ok()??.index;
            Some(RefCell::new((netlink, index)))
        };
        self.spaces.push(open());
    }

    /// Forgets what `space` learnt about `ip`. A packet that still needs it asks anew.
    pub(super) fn forget(&self, space: usize, ip: IpAddr) {
        let Some(Some(entry)) = self.spaces.get(space) else { return };
        let mut entry = entry.borrow_mut();
        let (netlink, ifindex) = &mut *entry;
        let neighbour = Neighbour { ifindex: *ifindex, ip, mac: None, state: 0 };
        // Not there any more is as good.
        let _ = netlink.apply(&Op::NeighDel(neighbour));
    }
}
