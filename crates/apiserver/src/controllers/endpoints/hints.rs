//! Hints: from which zones or nodes an endpoint should be used.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::object;
use super::super::quantity;
use super::super::world::World;
use super::Groups;
use super::endpoint::Endpoint;

/// More than this share of traffic above its even part overloads an endpoint, in percent.
const OVERLOAD: u128 = 20;

/// Gives the endpoints the hints that the Service asks for.
pub(super) fn give(world: &World, service: &Value, groups: &mut Groups) {
    let mode = mode(service);
    let distribution = service["spec"]["trafficDistribution"].as_str();
    for (_, endpoints) in groups.values_mut() {
        match (mode, distribution) {
            (Some("Auto" | "auto"), _) => by_capacity(world, endpoints),
            (_, Some("PreferClose" | "PreferSameZone")) => endpoints.iter_mut().for_each(same_zone),
            (_, Some("PreferSameNode")) => endpoints.iter_mut().for_each(same_node),
            _ => {}
        }
    }
}

fn mode(service: &Value) -> Option<&str> {
    let annotations = &service["metadata"]["annotations"];
    let names = ["service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints"];
    names.into_iter().find_map(|name| annotations[name].as_str())
}

/// Whether a Service's endpoints are shared out by what all nodes have.
pub(in super::super) fn spreads(service: &Value) -> bool {
    matches!(mode(service), Some("Auto" | "auto"))
}

fn same_zone(endpoint: &mut Endpoint) {
    if let Some(zone) = endpoint.value["zone"].as_str() {
        endpoint.value["hints"] = json!({"forZones": [{"name": zone}]});
    }
}

fn same_node(endpoint: &mut Endpoint) {
    same_zone(endpoint);
    if let Some(node) = endpoint.value["nodeName"].as_str() {
        endpoint.value["hints"]["forNodes"] = json!([{"name": node}]);
    }
}

/// Each zone gets ready endpoints by its share of the nodes' CPUs: its own first, then what others
/// can spare. None gets a hint where a zone could not be served without overload.
fn by_capacity(world: &World, endpoints: &mut [Endpoint]) {
    let mut ready: Vec<&mut Endpoint> =
        endpoints.iter_mut().filter(|endpoint| endpoint.value["conditions"]["ready"] == true).collect();
    let Some(capacity) = capacity(world) else { return };
    let zone_of = |endpoint: &Endpoint| endpoint.value["zone"].as_str().unwrap_or_default().to_owned();
    if ready.iter().any(|endpoint| !capacity.contains_key(&zone_of(endpoint))) {
        return;
    }
    let Some(mut wanted) = allocate(&capacity, ready.len()) else { return };
    let mut spare = Vec::new();
    for endpoint in &mut ready {
        let zone = zone_of(endpoint);
        match wanted.get_mut(&zone).filter(|left| **left > 0) {
            Some(left) => {
                *left -= 1;
                endpoint.value["hints"] = json!({"forZones": [{"name": zone}]});
            }
            None => spare.push(endpoint),
        }
    }
    let short = wanted.iter().flat_map(|(zone, left)| std::iter::repeat_n(zone, *left));
    for (endpoint, zone) in spare.into_iter().zip(short) {
        endpoint.value["hints"] = json!({"forZones": [{"name": zone}]});
    }
}

/// The CPUs of each zone's ready nodes, in thousandths; None where there are fewer than two zones, or
/// a node does not say its zone or its CPUs.
fn capacity(world: &World) -> Option<BTreeMap<String, u128>> {
    let mut zones: BTreeMap<String, u128> = BTreeMap::new();
    for (_, node) in world.of_kind("nodes").filter(|(_, node)| object::ready(node)) {
        let cpus = quantity::thousandths(&node["status"]["allocatable"]["cpu"])?;
        *zones.entry(object::zone(node)?.to_owned()).or_default() += cpus;
    }
    (zones.len() > 1 && zones.values().all(|cpus| *cpus > 0)).then_some(zones)
}

/// How many of `total` endpoints each zone gets.
fn allocate(capacity: &BTreeMap<String, u128>, total: usize) -> Option<BTreeMap<String, usize>> {
    let (count, all) = (u128::try_from(total).ok()?, capacity.values().sum::<u128>());
    let least = |cpus: u128| (cpus * count * 100).div_ceil(all * (100 + OVERLOAD));
    let mut given: BTreeMap<&String, u128> =
        capacity.iter().map(|(zone, cpus)| (zone, least(*cpus))).collect();
    let mut left = count.checked_sub(given.values().sum())?;
    while left > 0 {
        // The zone that is furthest below its even share, which is cpus / all * count.
        let below = |zone: &String| (capacity[zone] * count).saturating_sub(given[zone] * all);
        let next = *given.keys().max_by_key(|zone| below(zone))?;
        *given.entry(next).or_default() += 1;
        left -= 1;
    }
    given.into_iter().map(|(zone, count)| Some((zone.clone(), usize::try_from(count).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_shared_out_by_cpus_or_not_at_all() {
        let zones = |pairs: &[(&str, u128)]| pairs.iter().map(|(z, c)| ((*z).to_owned(), *c)).collect();
        let shared = |pairs: &[(&str, u128)], total| {
            allocate(&zones(pairs), total).map(|all| all.into_values().collect::<Vec<_>>())
        };
        assert_eq!(shared(&[("a", 4000), ("b", 4000)], 10), Some(vec![5, 5]));
        assert_eq!(shared(&[("a", 1000), ("b", 3000)], 8), Some(vec![2, 6]));
        assert_eq!(shared(&[("a", 1000), ("b", 1000), ("c", 1000)], 2), None, "too few for three zones");
        assert_eq!(shared(&[("a", 1000), ("b", 1000), ("c", 1000)], 0), Some(vec![0, 0, 0]));
    }
}
