//! The configuration of `host-local`, and the plugin when it is called by its own name.

use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ipnet::IpNet;
use serde::Deserialize;
use weft_ipam::host_local::Store;
use weft_ipam::range::{Assignment, Pool, RangeSpec};
use weft_model::network::parse_cidr;

use crate::ipam;
use crate::protocol::config::{Dns, invalid};
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;
use crate::protocol::result::{CniResult, Ip, Route};

/// Far more than any resolver reads.
const LARGEST_RESOLV_CONF: u64 = 64 * 1024;

/// What `ipam` holds for host-local, checked.
#[derive(Debug)]
pub(crate) struct HostLocal {
    pub(crate) data_dir: PathBuf,
    pub(crate) pool: Pool,
    pub(crate) requested: Vec<IpAddr>,
    pub(crate) routes: Vec<Route>,
    pub(crate) dns: Dns,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    subnet: Option<String>,
    range_start: Option<String>,
    range_end: Option<String>,
    gateway: Option<String>,
    ranges: Option<Vec<Vec<RangeSpec>>>,
    routes: Option<Vec<RouteKeys>>,
    resolv_conf: Option<PathBuf>,
}

/// A route of the configuration.
#[derive(Deserialize)]
pub(crate) struct RouteKeys {
    dst: String,
    gw: Option<String>,
    mtu: Option<u32>,
    advmss: Option<u32>,
    priority: Option<u32>,
    table: Option<u32>,
    scope: Option<u8>,
}

impl HostLocal {
    /// Checks the configuration of a call.
    pub(crate) fn of(call: &Call) -> Result<HostLocal, CniError> {
        let keys: Keys = call.ipam_keys()?;
        let mut sets: Vec<Vec<RangeSpec>> = Vec::new();
        let runtime = call.conf.runtime_config.as_ref();
        sets.extend(runtime.and_then(|config| config.ip_ranges.clone()).unwrap_or_default());
        if let Some(subnet) = keys.subnet {
            let (range_start, range_end, gateway) = (keys.range_start, keys.range_end, keys.gateway);
            sets.push(vec![RangeSpec { subnet, range_start, range_end, gateway }]);
        }
        sets.extend(keys.ranges.unwrap_or_default());
        let pool = Pool::new(&sets).map_err(|error| invalid(&format!("ipam.{error}")))?;
        let routes = keys.routes.unwrap_or_default().into_iter().enumerate().map(route);
        Ok(HostLocal {
            data_dir: ipam::data_dir(call)?,
            requested: requested(call)?,
            routes: routes.collect::<Result<_, _>>()?,
            dns: keys.resolv_conf.filter(given).map(resolv_conf).transpose()?.unwrap_or_default(),
            pool,
        })
    }

    /// The answer for these addresses.
    pub(crate) fn result(&self, assignments: &[Assignment]) -> CniResult {
        let ip = |a: &Assignment| Ip { address: a.address, gateway: Some(a.gateway), interface: None };
        CniResult {
            interfaces: Vec::new(),
            ips: assignments.iter().map(ip).collect(),
            routes: self.routes.clone(),
            dns: self.dns.clone(),
        }
    }

    /// STATUS: whether each set has an address left.
    pub(crate) fn status(&self, network: &str) -> Result<(), CniError> {
        let Some(store) = Store::open_existing(&self.data_dir, network)? else { return Ok(()) };
        match store.exhausted(&self.pool)? {
            Some(error) => Err(CniError::new(code::NOT_AVAILABLE, error.to_string())),
            None => Ok(()),
        }
    }
}

/// The addresses that the runtime asks for.
pub(crate) fn requested(call: &Call) -> Result<Vec<IpAddr>, CniError> {
    let legacy = call.conf.args.as_ref().and_then(|args| args.cni.as_ref());
    let runtime = call.conf.runtime_config.as_ref();
    let texts = [runtime, legacy].into_iter().flatten().filter_map(|config| config.ips.as_ref()).flatten();
    let mut ips = call.args.extra.ips.clone();
    for text in texts {
        let address = text.split_once('/').map_or(text.as_str(), |(address, _)| address);
        let ip = address.parse().map_err(|_| invalid(&format!("ips: {text:?} is no IP address")))?;
        ips.push(ip);
    }
    Ok(ips)
}

/// The route at this place of `ipam.routes`, checked.
pub(crate) fn route((index, keys): (usize, RouteKeys)) -> Result<Route, CniError> {
    let wrong = |field: &str, reason: &str| invalid(&format!("ipam.routes[{index}].{field}: {reason}"));
    let dst: IpNet = parse_cidr(&keys.dst).map_err(|error| wrong("dst", &error.to_string()))?;
    let parse = |gw: &String| gw.parse().map_err(|_| wrong("gw", &format!("{gw:?} is no IP address")));
    let gw: Option<IpAddr> = keys.gw.as_ref().filter(|gw| !gw.is_empty()).map(parse).transpose()?;
    if gw.is_some_and(|gw| gw.is_ipv4() != dst.addr().is_ipv4()) {
        return Err(wrong("gw", &format!("it is not of the family of {dst}")));
    }
    let RouteKeys { mtu, advmss, priority, table, scope, .. } = keys;
    Ok(Route { dst, gw, mtu, advmss, priority, table, scope })
}

/// An empty path is as good as none.
#[allow(clippy::ptr_arg, reason = "an option's filter gives a reference to what it holds")]
pub(super) fn given(path: &PathBuf) -> bool {
    !path.as_os_str().is_empty()
}

/// A device or a pipe could be read for ever.
fn read_file(path: &Path) -> io::Result<String> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut text = String::new();
    fs::File::open(path)?.take(LARGEST_RESOLV_CONF).read_to_string(&mut text)?;
    Ok(text)
}

fn resolv_conf(path: PathBuf) -> Result<Dns, CniError> {
    let text = read_file(&path)
        .map_err(|error| CniError::new(code::IO, format!("ipam.resolvConf {}: {error}", path.display())))?;
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}
