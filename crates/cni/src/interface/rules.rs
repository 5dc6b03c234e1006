//! The packet filter rules that belong to a veth pair: masquerading, and the guard against forged
//! hardware addresses.

use std::cell::Cell;
use std::thread;

use ipnet::IpNet;
use serde::Deserialize;
use weft_kernel::Netlink;
use weft_model::Mac;

use crate::interface::veth;
use crate::ipam;
use crate::netfilter::Backend;
use crate::netfilter::macspoof::SpoofGuard;
use crate::netfilter::masquerade::{self, Masquerade};
use crate::protocol::error::CniError;
use crate::protocol::plugin::Call;
use crate::protocol::result::CniResult;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    ip_masq: bool,
    ip_masq_backend: Option<String>,
    macspoofchk: bool,
}

/// The rules that a configuration wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    masquerade: Option<Backend>,
    guards_mac: bool,
}

impl Rules {
    pub(crate) fn of(call: &Call) -> Result<Rules, CniError> {
        let keys: Keys = call.keys()?;
        // Which one it is without being named takes a look at the machine.
        let asked = keys.ip_masq || keys.ip_masq_backend.is_some();
        let backend =
            asked.then(|| Backend::of("ipMasqBackend", keys.ip_masq_backend.as_deref())).transpose()?;
        Ok(Rules { masquerade: backend.filter(|_| keys.ip_masq), guards_mac: keys.macspoofchk })
    }

    /// What a DEL has to look for, however wrong the rest of the configuration is.
    fn to_remove(call: &Call) -> Rules {
        let keys: Keys = call.keys().unwrap_or_default();
        Rules { masquerade: keys.ip_masq.then_some(Backend::Nftables), guards_mac: keys.macspoofchk }
    }

    /// The container with the address `mac` behind `host_link` can send as itself only.
    pub(crate) fn guard(&self, call: &Call, host_link: &str, mac: Option<Mac>) -> Result<(), CniError> {
        match mac.filter(|_| self.guards_mac) {
            Some(mac) => SpoofGuard::of(&call.args).add(host_link, mac),
            None => Ok(()),
        }
    }

    /// What the container sends out of its networks has the node's address.
    pub(crate) fn masquerade(&self, call: &Call, result: &CniResult) -> Result<(), CniError> {
        let addresses = addresses(result);
        match self.masquerade.filter(|_| !addresses.is_empty()) {
            Some(backend) => Masquerade::of(call.conf.network()?, &call.args).add(backend, &addresses),
            None => Ok(()),
        }
    }

    /// CHECK: they are as they were made. `mac` is that of the container's interface.
    pub(crate) fn check(
        &self,
        call: &Call,
        host_link: &str,
        mac: Option<Mac>,
        made: &CniResult,
    ) -> Result<(), CniError> {
        if let Some(mac) = mac.filter(|_| self.guards_mac) {
            SpoofGuard::of(&call.args).check(host_link, mac)?;
        }
        let addresses = addresses(made);
        match self.masquerade.filter(|_| !addresses.is_empty()) {
            Some(backend) => Masquerade::of(call.conf.network()?, &call.args).check(backend, &addresses),
            None => Ok(()),
        }
    }

    fn remove(self, call: &Call) -> Result<(), CniError> {
        if self.masquerade.is_some() {
            Masquerade::of(call.conf.network()?, &call.args).remove()?;
        }
        if self.guards_mac {
            SpoofGuard::of(&call.args).remove()?;
        }
        Ok(())
    }
}

fn addresses(result: &CniResult) -> Vec<IpNet> {
    result.ips.iter().map(|ip| ip.address).collect()
}

/// DEL: the veth pair and its rules go, then the addresses: no other pod may get one while this
/// one can still use it. An IPAM plugin that works on the interface is told before it goes.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    let told = ipam::uses_interface(call).then(|| ipam::del(call));
    beside(call, || veth::remove(call))?;
    told.unwrap_or_else(|| ipam::del(call))?;
    // An ADD at the same time may have made its link after it was looked for. From here on it finds
    // its address gone, and undoes itself; one that has an address began after this DEL.
    let (mut host, name) = (Netlink::open()?, veth::host_link(call));
    if host.link(&name)?.is_none() || ipam::has_address(call) {
        return Ok(());
    }
    veth::remove_link(&mut host, &name).map(drop)
}

/// Undoes an ADD that has made the pair. Where another one has, nothing of it may be touched.
pub(crate) fn undo(call: &Call, made: &Cell<bool>) {
    if made.get() {
        let remove = || veth::remove_link(&mut Netlink::open()?, &veth::host_link(call)).map(drop);
        beside(call, remove).ok();
    }
}

/// Removes the rules beside the link, because the kernel takes its time for each.
fn beside(call: &Call, remove_link: impl FnOnce() -> Result<(), CniError>) -> Result<(), CniError> {
    let rules = Rules::to_remove(call);
    if rules.masquerade.is_none() && !rules.guards_mac {
        return remove_link();
    }
    thread::scope(|scope| {
        let beside = thread::Builder::new().spawn_scoped(scope, || rules.remove(call));
        let link = remove_link();
        let removed = match beside {
            Ok(beside) => beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread to be had: one after the other then.
            Err(_) => rules.remove(call),
        };
        link.and(removed)
    })
}

/// GC: the rules of the network that belong to no valid attachment.
pub(crate) fn gc(call: &Call) -> Result<(), CniError> {
    match (&call.conf.valid_attachments, Rules::to_remove(call).masquerade) {
        (Some(valid), Some(_)) => masquerade::gc(call.conf.network()?, valid),
        _ => Ok(()),
    }
}
