//! The `tuning` plugin: kernel parameters and attributes of the container's interface.
//!
//! What the attributes were before is kept in a file of the reference's form, so that a DEL of
//! either puts them back: an interface such as a physical one outlives the container.

mod allow;
mod backup;
mod keys;

use weft_kernel::{Link, LinkSet, Netlink, Netns, Op, sysctl};

use crate::chained::tuning::backup::Backup;
use crate::chained::tuning::keys::{Keys, Sysctl, Wanted};
use crate::chained::{interface, netns_if_there};
use crate::interface::check::differs;
use crate::protocol::args::Command;
use crate::protocol::error::CniError;
use crate::protocol::plugin::{Answer, Call};
use crate::sandbox;

pub(crate) fn plugin(call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    match call.command {
        Command::Add => add(call, &wanted(call)?, answer),
        Command::Del => del(call),
        Command::Check => check(call, &wanted(call)?),
        // The files of backups do not say which network they are of, so none can be judged.
        Command::Gc => Ok(()),
        _ => allow::check(&wanted(call)?.sysctls),
    }
}

fn wanted(call: &Call) -> Result<Wanted, CniError> {
    Wanted::of(call, call.keys()?)
}

fn add(call: &Call, wanted: &Wanted, answer: Answer<'_>) -> Result<(), CniError> {
    allow::check(&wanted.sysctls)?;
    let mut made = call.required_prev_result()?;
    let netns = sandbox::of(call)?;
    let mut before = Vec::new();
    let done = set_all(&netns, &wanted.sysctls, &mut before).and_then(|()| {
        if !wanted.changes_link() {
            return answer(&made);
        }
        let mut pod = Netlink::open_in(&netns)?;
        let link = interface(call, &mut pod)?;
        let backup = Backup::of(&link, wanted);
        let file = backup::path(&wanted.data_dir, call);
        backup.write(&file)?;
        if let Some(mac) = &wanted.mac {
            let named = made.interfaces.iter_mut().filter(|interface| interface.name == link.name);
            named.for_each(|interface| interface.mac = Some(mac.text.clone()));
        }
        let done = pod.apply(&Op::LinkSet(wanted.link_set(link.index))).map_err(CniError::from);
        done.and_then(|()| answer(&made)).inspect_err(|_| {
            backup.restore(&mut pod, link.index);
            backup::remove(&file);
        })
    });
    done.inspect_err(|_| restore_all(&netns, &before))
}

/// Sets the parameters in their order; what each was before goes to `before`.
fn set_all(netns: &Netns, sysctls: &[Sysctl], before: &mut Vec<(String, String)>) -> Result<(), CniError> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let _inside = netns.guard()?;
    for wanted in sysctls {
        // Some may only be written.
        let was = sysctl::get(&wanted.path).ok();
        sysctl::set(&wanted.path, &wanted.value)?;
        before.extend(was.map(|was| (wanted.path.clone(), was)));
    }
    Ok(())
}

fn restore_all(netns: &Netns, before: &[(String, String)]) {
    let Ok(_inside) = netns.guard() else { return };
    for (path, value) in before.iter().rev() {
        sysctl::set(path, value).ok();
    }
}

/// Puts the interface's attributes back. Parameters are the namespace's, which goes.
fn del(call: &Call) -> Result<(), CniError> {
    // A DEL must not fail for a key that it can do without.
    let data_dir = call.keys::<Keys>().unwrap_or_default().data_dir();
    let file = backup::path(&data_dir, call);
    let Some(backup) = Backup::read(&file) else { return Ok(()) };
    if let Some(netns) = netns_if_there(call) {
        let mut pod = Netlink::open_in(&netns)?;
        if let Some(link) = pod.link(&call.args.ifname)? {
            backup.restore(&mut pod, link.index);
        }
    }
    backup::remove(&file);
    Ok(())
}

fn check(call: &Call, wanted: &Wanted) -> Result<(), CniError> {
    call.required_prev_result()?;
    let netns = sandbox::of(call)?;
    check_sysctls(&netns, &wanted.sysctls)?;
    let link = interface(call, &mut Netlink::open_in(&netns)?)?;
    check_link(&link, wanted)
}

fn check_sysctls(netns: &Netns, sysctls: &[Sysctl]) -> Result<(), CniError> {
    let _inside = netns.guard()?;
    for wanted in sysctls {
        let actual = sysctl::get(&wanted.path)?;
        if actual != wanted.value {
            let message = format!("sysctl {} is {actual:?} and not {:?}", wanted.key, wanted.value);
            return Err(differs(message));
        }
    }
    Ok(())
}

fn check_link(link: &Link, wanted: &Wanted) -> Result<(), CniError> {
    let name = &link.name;
    let mac = link.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let wrong = match wanted {
        Wanted { mac: Some(wanted), .. } if link.mac != Some(wanted.mac) => {
            format!("{name} has the MAC {mac} and not {}", wanted.mac)
        }
        Wanted { promiscuous, .. } if link.promiscuous != *promiscuous => {
            format!("{name}: promiscuous mode is {} and not {promiscuous}", link.promiscuous)
        }
        Wanted { mtu: Some(mtu), .. } if link.mtu != *mtu => {
            format!("{name} has the MTU {} and not {mtu}", link.mtu)
        }
        Wanted { allmulti: Some(wanted), .. } if link.allmulti != *wanted => {
            format!("{name}: all-multicast mode is {} and not {wanted}", link.allmulti)
        }
        Wanted { tx_queue_len: Some(wanted), .. } if link.tx_queue_len != *wanted => {
            format!("{name} has the transmit queue length {} and not {wanted}", link.tx_queue_len)
        }
        _ => return Ok(()),
    };
    Err(differs(wrong))
}

impl Wanted {
    fn changes_link(&self) -> bool {
        let values = [self.mtu.is_some(), self.allmulti.is_some(), self.tx_queue_len.is_some()];
        self.mac.is_some() || self.promiscuous || values.contains(&true)
    }

    /// All attributes in one request.
    fn link_set(&self, index: u32) -> LinkSet {
        LinkSet {
            index,
            mac: self.mac.as_ref().map(|mac| mac.mac),
            mtu: self.mtu,
            promiscuous: self.promiscuous.then_some(true),
            allmulti: self.allmulti,
            tx_queue_len: self.tx_queue_len,
            ..LinkSet::default()
        }
    }
}
