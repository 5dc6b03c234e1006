//! Cluster addresses: one of each family that a Service has, which no other Service has.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::taken::Taken;
use super::{families, headless, needs_cluster_ip, texts};
use crate::error::FieldError;
use crate::strategy::names::random_bytes;

/// Bits of a range that are used; a larger range has more addresses than there are Services.
const USED_BITS: u32 = 20;

/// Gives each family without an address one, and takes the addresses that are asked for.
pub(super) fn allocate(
    before: Option<&Value>,
    spec: &mut Value,
    taken: &Taken<'_>,
    cidrs: &[IpNet],
) -> Result<(), FieldError> {
    if !needs_cluster_ip(spec) || headless(spec) || families::untouched(before, spec) {
        return Ok(());
    }
    let given = texts(&spec["clusterIPs"]);
    let kept = before.filter(|b| needs_cluster_ip(b)).map(|b| texts(&b["clusterIPs"])).unwrap_or_default();
    // A Service that was headless stays so, or is refused by its check.
    if kept.first().is_some_and(|a| a == "None") {
        return Ok(());
    }
    let mut addresses = Vec::new();
    for (index, family) in texts(&spec["ipFamilies"]).iter().enumerate() {
        let address = match given.get(index).filter(|a| !a.is_empty()) {
            Some(address) if kept.get(index) == Some(address) => address.clone(),
            // That is a change of what may not change: the check says so.
            Some(address) if kept.get(index).is_some() => address.clone(),
            Some(address) => wanted(address, &given, taken, cidrs)?.to_string(),
            None => free(family, taken, cidrs)?.to_string(),
        };
        addresses.push(address);
    }
    if let Some(first) = addresses.first() {
        spec["clusterIP"] = json!(first);
        spec["clusterIPs"] = json!(addresses);
    }
    Ok(())
}

fn wanted(text: &str, given: &[String], taken: &Taken<'_>, cidrs: &[IpNet]) -> Result<IpAddr, FieldError> {
    let bad = |rule: &str| {
        let rule = format!("failed to allocate IP {text}: {rule}");
        FieldError::invalid("spec.clusterIPs", &json!(given), &rule)
    };
    let address: IpAddr = text.parse().map_err(|_| bad("it is no address"))?;
    let Some(cidr) = cidrs.iter().find(|c| c.addr().is_ipv4() == address.is_ipv4()) else {
        return Err(bad("no range of its family is configured"));
    };
    if !usable(cidr, address) {
        return Err(bad(&format!(
            "the provided IP ({address}) is not in the valid range. The range of valid IPs is {cidr}"
        )));
    }
    if taken.has_address(address) {
        return Err(bad("provided IP is already allocated"));
    }
    Ok(address)
}

/// The network's own address and IPv4's broadcast address are nobody's.
fn usable(cidr: &IpNet, address: IpAddr) -> bool {
    let broadcast = cidr.addr().is_ipv4() && address == cidr.broadcast();
    cidr.contains(&address) && address != cidr.network() && !broadcast
}

/// How many of a range's first addresses are for those who choose one, such as the cluster's DNS: they are
/// given out when all others are taken.
fn chosen(size: u64) -> u64 {
    if size < 16 { 0 } else { (size / 16).clamp(16, 256).min(size - 1) }
}

/// A free address of a family, looked for from a random place.
fn free(family: &str, taken: &Taken<'_>, cidrs: &[IpNet]) -> Result<IpAddr, FieldError> {
    let none = |why: &str| {
        FieldError::invalid("spec.clusterIPs", &json!([]), &format!("failed to allocate IP: {why}"))
    };
    let Some(cidr) = cidrs.iter().find(|c| families::of(c.addr()) == family) else {
        return Err(none(&format!("no range of the family {family} is configured")));
    };
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(USED_BITS);
    let size = 1u64 << bits;
    let chosen = chosen(size);
    let start = u64::from_be_bytes(random_bytes()) % (size - chosen);
    let address = |n: u64| match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4(Ipv4Addr::from(u32::from(base).wrapping_add(n as u32))),
        IpAddr::V6(base) => IpAddr::V6(Ipv6Addr::from(u128::from(base).wrapping_add(n.into()))),
    };
    // The first address is the API's by custom.
    (0..size - chosen)
        .map(|i| chosen + (start + i) % (size - chosen))
        .chain(0..chosen)
        .filter(|n| *n > 1)
        .map(address)
        .find(|a| usable(cidr, *a) && !taken.has_address(*a))
        .ok_or_else(|| none(&format!("the range {cidr} is full")))
}
