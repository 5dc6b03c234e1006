//! Addresses for an interface plugin: our own IPAM plugins in this process, any other by executing
//! it.

pub(crate) mod dhcp;
pub(crate) mod host_local;
pub(crate) mod pools;
pub(crate) mod static_;

use std::path::PathBuf;

use serde::Deserialize;
use weft_ipam::host_local::{DEFAULT_DATA_DIR, Reservation, Store};
use weft_ipam::range::Assignment;
use weft_kernel::{Netlink, Op, conntrack};

use crate::ipam::dhcp::Dhcp;
use crate::ipam::host_local::HostLocal;
use crate::ipam::pools::Pools;
use crate::ipam::static_::Static;
use crate::protocol::args::Command;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::exec;
use crate::protocol::plugin::{Answer, Call};
use crate::protocol::result::{CniResult, Ip};

/// The name of the IPAM plugin that keeps its account in files.
pub(crate) const HOST_LOCAL: &str = "host-local";
/// The name of the one without an account of who has what.
pub(crate) const STATIC: &str = "static";
/// The name of the one that gives what the agent has claimed of pools.
pub(crate) const POOLS: &str = "pools";
/// The name of the one whose daemon asks the network.
pub(crate) const DHCP: &str = "dhcp";

/// What gives the addresses.
#[derive(Debug)]
pub(crate) enum Ipam {
    /// `"ipam": {}`: nothing does, the interface has none.
    None,
    HostLocal(Box<HostLocal>),
    Static(Static),
    Pools(Box<Pools>),
    Dhcp(Box<Dhcp>),
    Other(PathBuf),
}

impl Ipam {
    /// The IPAM plugin of a call, its configuration checked.
    pub(crate) fn of(call: &Call) -> Result<Ipam, CniError> {
        if call.conf.ipam.is_none() {
            return Err(invalid("ipam is missing: say how addresses are given, or {} for none"));
        }
        match call.conf.ipam_type() {
            HOST_LOCAL => Ok(Ipam::HostLocal(Box::new(HostLocal::of(call)?))),
            STATIC => Ok(Ipam::Static(Static::of(call)?)),
            POOLS => Ok(Ipam::Pools(Box::new(Pools::of(call)?))),
            DHCP => Ok(Ipam::Dhcp(Box::new(Dhcp::of(call)?))),
            "" if call.conf.ipam.as_ref().is_some_and(serde_json::Map::is_empty) => Ok(Ipam::None),
            "" => Err(invalid("ipam.type is missing: name an IPAM plugin such as host-local")),
            other => Ok(Ipam::Other(exec::find(other, &call.args)?)),
        }
    }
}

impl Ipam {
    /// Whether it is known beforehand to give an IPv6 address.
    pub(crate) fn gives_v6(&self) -> bool {
        if let Ipam::Static(addresses) = self {
            return addresses.gives_v6();
        }
        let Ipam::HostLocal(host_local) = self else { return false };
        let mut ranges = host_local.pool.sets().iter().flat_map(|set| set.ranges());
        ranges.any(|range| range.gateway().is_ipv6())
    }

    /// Whether it works on the container's interface, which has to be there before it is asked:
    /// DHCP does, and another program's plugin may.
    pub(crate) fn uses_interface(&self) -> bool {
        matches!(self, Ipam::Dhcp(_) | Ipam::Other(_))
    }
}

/// The same for a DEL, which has to come before the interface goes.
pub(crate) fn uses_interface(call: &Call) -> bool {
    !matches!(call.conf.ipam_type(), HOST_LOCAL | STATIC | POOLS | "")
}

/// What shows that an ADD whose process is gone did give its address to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// The host-side link that is named after the attachment's key.
    HostLink,
    /// Nothing that can be seen from the node: the address is kept until a DEL.
    Nowhere,
}

/// ADD: gets addresses, has `attach` use them and answers with what it made. When anything
/// fails, `detach` undoes what `attach` did and the addresses are free again.
pub(crate) fn add(
    call: &Call,
    ipam: &Ipam,
    evidence: Evidence,
    attach: impl FnOnce(CniResult) -> Result<CniResult, CniError>,
    detach: impl Fn(),
    answer: Answer<'_>,
) -> Result<(), CniError> {
    match ipam {
        Ipam::None | Ipam::Static(_) => {
            let done = match ipam {
                Ipam::Static(addresses) => some(addresses.result()).and_then(attach),
                _ => attach(CniResult::default()),
            };
            let done = done.and_then(|result| answer(&result));
            if done.is_err() {
                detach();
            }
            done
        }
        Ipam::HostLocal(host_local) => {
            let store = Store::open(&host_local.data_dir, call.conf.network()?)?;
            let (pool, requested) = (&host_local.pool, &host_local.requested);
            let lease = store.reserve(call.args.attachment(), pool, requested, &|link| has_link(link))?;
            for ip in lease.torn() {
                let file = host_local.data_dir.join(call.conf.network()?).join(ip.to_string());
                eprintln!(
                    "{}: the file names no owner, as after a power cut: the address counted as free",
                    file.display()
                );
            }
            let addresses = host_local.result(lease.assignments());
            let release = || _ = store.release(call.args.attachment(), Some(pool));
            with_lease(
                &lease,
                addresses,
                evidence,
                attach,
                || {
                    detach();
                    release();
                },
                answer,
            )
        }
        Ipam::Pools(pools) => {
            let store = Store::open(&pools.data_dir, call.conf.network()?)?;
            let attachment = call.args.attachment();
            let lease = store.reserve_of_pools(attachment, &pools.request, &|link| has_link(link))?;
            let ip = |a: &Assignment| Ip { address: a.address, gateway: Some(a.gateway), interface: None };
            let ips = lease.assignments().iter().map(ip).collect();
            let addresses = CniResult { ips, ..CniResult::default() };
            let release = || _ = store.release_of_pools(attachment);
            with_lease(
                &lease,
                addresses,
                evidence,
                attach,
                || {
                    detach();
                    release();
                },
                answer,
            )
        }
        Ipam::Dhcp(dhcp) => {
            let done = dhcp.add().and_then(attach).and_then(|result| answer(&result));
            if done.is_err() {
                dhcp::del(call).ok();
                detach();
            }
            done
        }
        Ipam::Other(plugin) => {
            let done = exec::call(plugin, "ADD", &call.args, &call.raw)
                .and_then(|output| CniResult::from_value(&exec::decode(&output)?, call.version))
                .and_then(some)
                .and_then(attach)
                .and_then(|result| answer(&result));
            if done.is_err() {
                detach();
                exec::call(plugin, "DEL", &call.args, &call.raw).ok();
            }
            done
        }
    }
}

/// A result that has an address.
fn some(addresses: CniResult) -> Result<CniResult, CniError> {
    if addresses.ips.is_empty() {
        return Err(invalid("ipam: the plugin gave no address"));
    }
    Ok(addresses)
}

/// Has `attach` use what was reserved; `undo` gives it back when that fails.
fn with_lease(
    lease: &Reservation<'_>,
    addresses: CniResult,
    evidence: Evidence,
    attach: impl FnOnce(CniResult) -> Result<CniResult, CniError>,
    undo: impl Fn(),
    answer: Answer<'_>,
) -> Result<(), CniError> {
    if evidence == Evidence::Nowhere {
        lease.commit()?;
    }
    let held = || {
        let gone = "a DEL of this container came during its ADD";
        if lease.is_held() { Ok(()) } else { Err(CniError::new(code::TRY_AGAIN, gone)) }
    };
    let done =
        attach(addresses).and_then(|result| held().map(|()| result)).and_then(|result| answer(&result));
    match done {
        Ok(()) => {
            // The answer is out. Should this fail, the unfinished ADD counts as finished as
            // long as its link is there, which is as long as the sandbox is.
            if evidence == Evidence::HostLink {
                lease.commit().ok();
            }
            Ok(())
        }
        Err(error) => {
            undo();
            Err(error)
        }
    }
}

/// Whether an unfinished ADD got as far as making its host-side link. Unknown counts as yes: an
/// address lost until the next reboot is better than one given twice.
fn has_link(name: &str) -> bool {
    Netlink::open().and_then(|mut netlink| netlink.link(name)).map_or(true, |link| link.is_some())
}

/// DEL: frees the addresses. What cannot be found is freed already.
pub(crate) fn del(call: &Call) -> Result<(), CniError> {
    match call.conf.ipam_type() {
        name @ (HOST_LOCAL | POOLS) => {
            let Some(store) = Store::open_existing(&account_dir(call), call.conf.network()?)? else {
                return Ok(());
            };
            let freed = if name == POOLS {
                store.release_of_pools(call.args.attachment())?
            } else {
                let pool = HostLocal::of(call).ok().map(|host_local| host_local.pool);
                store.release(call.args.attachment(), pool.as_ref())?
            };
            // A peer of this container that goes on sending must not reach the next owner. Best
            // effort: a kernel may track no connections at all.
            conntrack::forget_addresses(&freed).ok();
            Ok(())
        }
        DHCP => dhcp::del(call),
        "" | STATIC => Ok(()),
        other => exec::call(&exec::find(other, &call.args)?, "DEL", &call.args, &call.raw).map(drop),
    }
}

/// Whether an address is reserved for the container, where we keep the account.
pub(crate) fn has_address(call: &Call) -> bool {
    let (Some(data_dir), Ok(network)) = (account(call), call.conf.network()) else { return false };
    let store = Store::open_existing(&data_dir, network).ok().flatten();
    let held = store.and_then(|store| store.held(call.args.attachment()).ok());
    held.is_some_and(|held| !held.is_empty())
}

/// The folder of the account, where we keep one.
fn account(call: &Call) -> Option<PathBuf> {
    matches!(call.conf.ipam_type(), HOST_LOCAL | POOLS).then(|| account_dir(call))
}

/// The same for a DEL, which looks somewhere however wrong the configuration is.
pub(crate) fn account_dir(call: &Call) -> PathBuf {
    data_dir(call).unwrap_or_else(|_| DEFAULT_DATA_DIR.into())
}

/// The folder that the configuration names, or the usual one.
fn data_dir(call: &Call) -> Result<PathBuf, CniError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Keys {
        data_dir: Option<PathBuf>,
    }
    let keys: Keys = call.ipam_keys()?;
    Ok(keys.data_dir.filter(host_local::given).unwrap_or_else(|| DEFAULT_DATA_DIR.into()))
}

/// `host-local` or `pools`, called by its own name.
pub(crate) fn plugin(name: &str, call: &Call, answer: Answer<'_>) -> Result<(), CniError> {
    if call.conf.ipam_type() != name {
        return Err(invalid(&format!("ipam.type is not {name}")));
    }
    if call.command == Command::Del {
        return del(call);
    }
    let ipam = Ipam::of(call)?;
    match call.command {
        Command::Add => add(call, &ipam, Evidence::Nowhere, Ok, || {}, answer),
        Command::Check => check(call, &ipam),
        Command::Gc => gc(call, &ipam),
        _ => status(call, &ipam),
    }
}

/// CHECK: the addresses are still reserved for this container.
pub(crate) fn check(call: &Call, ipam: &Ipam) -> Result<(), CniError> {
    if let Ipam::Static(addresses) = ipam {
        return addresses.check(call);
    }
    if let Ipam::Dhcp(dhcp) = ipam {
        return dhcp.check(call.prev_result()?.as_ref());
    }
    let Some(data_dir) = account(call) else { return delegate(call, ipam, "CHECK") };
    let store = Store::open_existing(&data_dir, call.conf.network()?)?;
    let attachment = call.args.attachment();
    let held = store.map(|store| store.held(attachment)).transpose()?.unwrap_or_default();
    if held.is_empty() {
        let message = format!(
            "no address is reserved for {} of container {}",
            attachment.ifname, attachment.container_id
        );
        return Err(CniError::new(code::NOT_AS_MADE, message));
    }
    Ok(())
}

/// STATUS: an ADD would get its addresses.
pub(crate) fn status(call: &Call, ipam: &Ipam) -> Result<(), CniError> {
    match ipam {
        Ipam::HostLocal(host_local) => host_local.status(call.conf.network()?),
        Ipam::Pools(pools) => pools.status(call.conf.network()?),
        Ipam::Dhcp(dhcp) => dhcp.status(),
        _ => delegate(call, ipam, "STATUS"),
    }
}

/// GC: frees what belongs to no valid attachment, and its link.
pub(crate) fn gc(call: &Call, ipam: &Ipam) -> Result<(), CniError> {
    let valid = call.conf.valid_attachments.as_ref();
    let valid = valid.ok_or_else(|| invalid("cni.dev/valid-attachments is missing: nothing was removed"))?;
    if let Ipam::Dhcp(dhcp) = ipam {
        return dhcp.gc();
    }
    let Some(data_dir) = account(call) else { return delegate(call, ipam, "GC") };
    let Some(store) = Store::open_existing(&data_dir, call.conf.network()?)? else {
        return Ok(());
    };
    let keep = |id: &str, ifname: &str| {
        valid.iter().any(|a| a.container_id == id && (a.ifname == ifname || ifname.is_empty()))
    };
    let mut netlink = Netlink::open()?;
    let freed = store.retain(&keep)?;
    for (key, _) in &freed {
        if let Some(link) = netlink.link(key)? {
            netlink.apply(&Op::LinkDel(link.index))?;
        }
    }
    conntrack::forget_addresses(&freed.iter().map(|(_, ip)| *ip).collect::<Vec<_>>()).ok();
    Ok(())
}

fn delegate(call: &Call, ipam: &Ipam, command: &str) -> Result<(), CniError> {
    match ipam {
        Ipam::Other(plugin) => exec::call(plugin, command, &call.args, &call.raw).map(drop),
        Ipam::HostLocal(_) | Ipam::Pools(_) | Ipam::Static(_) | Ipam::Dhcp(_) | Ipam::None => Ok(()),
    }
}
