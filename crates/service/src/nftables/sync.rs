//! From a difference to a transaction, and from what the kernel has to a difference.

use std::collections::HashMap;
use std::net::Ipv6Addr;

use weft_kernel::nft::{
    Bytes, Chain, Datum, Element, Family, Nft, Outline, Set, SetKey, Shape, Table, Transaction,
};
use weft_model::service::Protocol;

use super::chains::{self, NETS};
use super::maps::Map;
use super::state::{Difference, Elements, State};
use crate::{Error, FrontendKey, Place, ServicePlan};

/// The table of a family.
pub(crate) fn table(ipv6: bool) -> Table {
    Table::new(if ipv6 { Family::Ip6 } else { Family::Ip }, super::TABLE)
}

fn net_key(ipv6: bool) -> SetKey {
    if ipv6 { SetKey::Ipv6 } else { SetKey::Ipv4 }
}

/// Adds to a transaction what makes a table of nothing, but for what Services need.
fn create(t: &mut Transaction, ipv6: bool, table: &Table) {
    t.add_table(table, false);
    for name in NETS {
        t.add_set(table, name, &Set::nets(net_key(ipv6), []));
    }
    for (map, node) in Map::all() {
        t.add_map(table, map.name(node), &map.shape(node, ipv6));
    }
    let fixed = chains::fixed(ipv6);
    for (name, chain) in &fixed {
        t.add_chain(table, name, chain.base);
    }
    for (name, chain) in &fixed {
        chain.rules.iter().for_each(|rule| t.add_rule(table, name, rule));
    }
}

/// Adds a difference to a transaction.
pub(super) fn change(t: &mut Transaction, ipv6: bool, table: &Table, difference: &Difference) {
    for (name, set) in &difference.nets {
        t.flush_set(table, name);
        t.add_elements(table, name, set);
    }
    for (name, shape) in &difference.affinity {
        if let Some(shape) = shape {
            t.add_map(table, name, shape);
        }
    }
    for (name, rules) in &difference.chains {
        if let Some(rules) = rules {
            t.add_chain(table, name, None);
            rules.iter().for_each(|rule| t.add_rule(table, name, rule));
        }
    }
    for (name, rules) in &difference.rewritten {
        t.flush_chain(table, name);
        rules.iter().for_each(|rule| t.add_rule(table, name, rule));
    }
    for ((map, node), elements) in &difference.elements {
        t.remove(table, map.name(*node), &map.shape(*node, ipv6), &elements.gone);
    }
    for ((map, node), elements) in &difference.elements {
        t.insert(table, map.name(*node), &map.shape(*node, ipv6), &elements.new);
    }
    let gone = || difference.chains.iter().filter(|(_, rules)| rules.is_none()).map(|(name, _)| name);
    gone().for_each(|name| t.flush_chain(table, name));
    for (name, _) in difference.affinity.iter().filter(|(_, shape)| shape.is_none()) {
        t.delete_map(table, name);
    }
    gone().for_each(|name| t.delete_chain(table, name));
}

/// Adds to a transaction what makes the table as planned, whatever is there; what clients were led to before
/// stays remembered. Says what the table is then; none where the family has nothing.
pub(super) fn replace(
    t: &mut Transaction,
    nft: &mut Nft,
    ipv6: bool,
    plan: &ServicePlan,
) -> Result<(Option<State>, usize), Error> {
    let table = table(ipv6);
    let outline = nft.outline(&table)?;
    if !is_used(plan, ipv6) {
        if outline.is_some() {
            t.delete_table(&table);
        }
        return Ok((None, usize::from(outline.is_some())));
    }
    let (state, wanted) = State::whole(ipv6, plan);
    let mut writes = wanted.writes();
    match outline {
        Some(outline) if fits(&outline, ipv6, &wanted) => {
            writes = mend(t, nft, ipv6, &outline, wanted)?;
        }
        outline => {
            if outline.is_some() {
                t.delete_table(&table);
            }
            create(t, ipv6, &table);
            change(t, ipv6, &table, &wanted);
        }
    }
    Ok((Some(state), writes))
}

/// Whether a family has pods or Services.
pub(crate) fn is_used(plan: &ServicePlan, ipv6: bool) -> bool {
    let (ips, frontends) = (&plan.cluster_ips, &plan.frontends);
    // Addresses of IPv4 come before those of IPv6, and node ports last.
    let six =
        FrontendKey { place: Place::Address(Ipv6Addr::UNSPECIFIED.into()), protocol: Protocol::Tcp, port: 0 };
    let node_ports = FrontendKey { place: Place::NodePort { ipv6: false }, ..six };
    let node_ports6 = FrontendKey { place: Place::NodePort { ipv6: true }, ..six };
    let [mut addresses, mut ports] = match ipv6 {
        false => [frontends.range(..six), frontends.range(node_ports..node_ports6)],
        true => [frontends.range(six..node_ports), frontends.range(node_ports6..)],
    };
    let ip = if ipv6 { ips.last_key_value() } else { ips.first_key_value() };
    plan.pods.iter().any(|net| net.addr().is_ipv6() == ipv6)
        || ip.is_some_and(|(ip, _)| ip.is_ipv6() == ipv6)
        || addresses.next().is_some()
        || ports.next().is_some()
}

/// Whether what is there can be changed into what is wanted: what cannot be changed is as wanted.
fn fits(outline: &Outline, ipv6: bool, wanted: &Difference) -> bool {
    let same = |name: &str, shape: &Shape| outline.maps.get(name) == Some(shape);
    let is_net = |name: &str| outline.maps.get(name).is_some_and(|shape| shape.interval);
    let fixed = chains::fixed(ipv6);
    let base = |name: &String| fixed.get(name).and_then(|chain| chain.base);
    Map::all().all(|(map, node)| same(map.name(node), &map.shape(node, ipv6)))
        && NETS.into_iter().all(is_net)
        && wanted.affinity.iter().all(|(name, shape)| {
            !outline.maps.contains_key(name) || shape.as_ref().is_some_and(|shape| same(name, shape))
        })
        && fixed.iter().all(|(name, chain)| outline.chains.get(name).is_some_and(|c| c.base == chain.base))
        && outline.chains.iter().all(|(name, chain)| chain.base == base(name))
}

/// The difference between what is there and what is wanted.
fn mend(
    t: &mut Transaction,
    nft: &mut Nft,
    ipv6: bool,
    outline: &Outline,
    mut wanted: Difference,
) -> Result<usize, Error> {
    let table = table(ipv6);
    for (name, set) in std::mem::take(&mut wanted.nets) {
        if nft.net_set(&table, name, net_key(ipv6), true)? != set {
            wanted.nets.insert(name, set);
        }
    }
    let fixed = chains::fixed(ipv6);
    for (name, Chain { rules, .. }) in &outline.chains {
        let is_wanted = fixed.get(name).map(|chain| chain.rules.clone());
        match is_wanted.or_else(|| wanted.chains.remove(name).flatten()) {
            Some(wanted) if wanted == *rules => {}
            Some(rules) => _ = wanted.rewritten.insert(name.clone(), rules),
            None => _ = wanted.chains.insert(name.clone(), None),
        }
    }
    for (name, shape) in &outline.maps {
        let own = |(map, node): (Map, bool)| map.name(node) == name;
        if wanted.affinity.get(name).is_some_and(|wanted| wanted.as_ref() == Some(shape)) {
            wanted.affinity.remove(name);
        } else if !Map::all().any(own) && !NETS.contains(&&**name) {
            wanted.affinity.insert(name.clone(), None);
        }
    }
    for (map, node) in Map::all() {
        let Elements { new, .. } = wanted.elements.remove(&(map, node)).unwrap_or_default();
        let mut new: HashMap<Bytes, Datum> = new.into_iter().map(|e| (e.key, e.data)).collect();
        let mut elements = Elements::default();
        nft.elements(&table, map.name(node), |found| {
            if new.get(&found.key) == Some(&found.data) {
                new.remove(&found.key);
            } else {
                elements.gone.push(found.key);
            }
        })?;
        elements.new = new.into_iter().map(|(key, data)| Element { key, data }).collect();
        if elements != Elements::default() {
            wanted.elements.insert((map, node), elements);
        }
    }
    change(t, ipv6, &table, &wanted);
    Ok(wanted.writes())
}
