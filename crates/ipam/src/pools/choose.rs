//! The addresses of one pod, out of what its node may give.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use weft_model::pools::Wish;

use crate::address::{Family, number};
use crate::pools::file::{File, Span};
use crate::range::Assignment;

/// Who asks.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The pod's namespace; empty for a container that is no pod.
    pub namespace: String,
    /// What the pod asks for.
    pub wish: Wish,
}

/// Why there is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The agent has not told yet: soon it may.
    #[error("{0}")]
    NotYet(String),
    /// Asking again does not help.
    #[error("{0}")]
    Never(String),
}

/// The addresses for a pod: one of each family that its pools have.
///
/// `taken` are the node's allocations; `last` is the address of each family that was given last (IPv4
/// first), so that a freed one rests for as long as its block allows.
pub fn choose(
    file: &File,
    request: &Request,
    taken: &HashSet<IpAddr>,
    last: [Option<IpAddr>; 2],
) -> Result<Vec<Assignment>, Refusal> {
    let namespace = if request.namespace.is_empty() { "default" } else { &request.namespace };
    let choice = file.namespaces.get(namespace).and_then(|place| file.choices.get(*place));
    let choice = choice.ok_or_else(|| {
        Refusal::NotYet(format!("the agent has not told yet which pools namespace {namespace} has"))
    })?;
    let mut pools = &choice.automatic;
    let wished: Vec<Arc<str>>;
    if !request.wish.pools.is_empty() {
        let refused = request.wish.pools.iter().find(|name| !choice.allowed.contains(name));
        if let Some(name) = refused {
            return Err(Refusal::NotYet(format!(
                "pool {name}, which the pod asks for, is none of namespace {namespace} on this node: \
                 correct the annotation, or the pool's selectors"
            )));
        }
        wished = request.wish.pools.clone();
        pools = &wished;
    }
    let mut given = Vec::new();
    for (v4, last) in [(true, last[0]), (false, last[1])] {
        if let Some(ip) = request.wish.ips.iter().find(|ip| ip.is_ipv4() == v4) {
            given.push(this(file, ip, &choice.allowed, taken)?);
            continue;
        }
        let of_family = |name: &&Arc<str>| {
            file.pools.iter().any(|pool| pool.name == **name && pool.cidr.addr().is_ipv4() == v4)
        };
        let names: Vec<&Arc<str>> = pools.iter().filter(of_family).collect();
        if !names.is_empty() {
            given.push(next_of(file, v4, &names, taken, last)?);
        }
    }
    if given.is_empty() {
        return Err(Refusal::NotYet(format!(
            "namespace {namespace} has no pool on this node: make one, or change the selectors of one"
        )));
    }
    Ok(given)
}

/// The address that a pod asks for.
fn this(
    file: &File,
    ip: &IpAddr,
    allowed: &[Arc<str>],
    taken: &HashSet<IpAddr>,
) -> Result<Assignment, Refusal> {
    let Some(pool) = file.pools.iter().find(|pool| pool.cidr.contains(ip)) else {
        return Err(Refusal::NotYet(format!("{ip}, which the pod asks for, is in no pool of this node")));
    };
    let name = &pool.name;
    if !allowed.contains(name) {
        return Err(Refusal::NotYet(format!(
            "{ip}, which the pod asks for, is in pool {name}, which its namespace may not use"
        )));
    }
    let Some(span) = file.spans.iter().find(|span| span.holds(ip)) else {
        return Err(Refusal::NotYet(format!(
            "{ip}, which the pod asks for, is not with this node: its agent asks for it. The first \
             address of a block is never given"
        )));
    };
    if taken.contains(ip) {
        return Err(Refusal::NotYet(format!(
            "{ip}, which the pod asks for, is taken by another pod of this node"
        )));
    }
    assignment(span, *ip).ok_or_else(|| Refusal::Never(format!("{ip} makes no sense in {}", span.block)))
}

/// The next address of the first span that has one, after `last` where that lies in it.
fn next_of(
    file: &File,
    v4: bool,
    pools: &[&Arc<str>],
    taken: &HashSet<IpAddr>,
    last: Option<IpAddr>,
) -> Result<Assignment, Refusal> {
    let free = |ip: &IpAddr| !taken.contains(ip) && !file.held.contains(ip);
    let mut spans = 0;
    for pool in pools {
        for span in file.spans.iter().filter(|span| span.pool == **pool && span.first.is_ipv4() == v4) {
            spans += 1;
            if let Some(found) = addresses(span, last).find(free).and_then(|ip| assignment(span, ip)) {
                return Ok(found);
            }
        }
    }
    let names: Vec<&str> = pools.iter().map(|name| &***name).collect();
    Err(Refusal::NotYet(match spans {
        0 => format!("this node has no block of {} yet", names.join(", ")),
        _ => format!("no address of {} is left on this node: its agent asks for more", names.join(", ")),
    }))
}

/// Every address of the span once, beginning after `last` if that is one.
fn addresses(span: &Span, last: Option<IpAddr>) -> impl Iterator<Item = IpAddr> {
    let family = Family::of(&span.first);
    let (first, end) = (number(&span.first), number(&span.last));
    let after = last.filter(|ip| span.holds(ip)).map_or(first, |ip| number(&ip).saturating_add(1));
    (after..=end).chain(first..=end.min(after.saturating_sub(1))).filter_map(move |at| family.address(at))
}

fn assignment(span: &Span, ip: IpAddr) -> Option<Assignment> {
    let address = IpNet::new(ip, span.block.prefix_len()).ok()?;
    Some(Assignment { address, gateway: span.block.network() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pools::file::{Names, Pool, VERSION};
    use proptest::prelude::*;

    fn file() -> File {
        let pool = |name: &str, cidr: &str| Pool { name: name.into(), cidr: cidr.parse().unwrap() };
        let span = |pool: &str, block: &str, first: &str, last: &str| Span {
            pool: pool.into(),
            block: block.parse().unwrap(),
            first: first.parse().unwrap(),
            last: last.parse().unwrap(),
        };
        File {
            version: VERSION,
            pools: vec![pool("usual", "10.1.0.0/16"), pool("gold", "10.2.0.0/16"), pool("six", "fd00::/64")],
            spans: vec![
                span("usual", "10.1.0.0/30", "10.1.0.1", "10.1.0.3"),
                span("usual", "10.1.9.0/30", "10.1.9.2", "10.1.9.2"),
                span("six", "fd00::/122", "fd00::1", "fd00::3f"),
            ],
            held: vec!["10.1.0.3".parse().unwrap()],
            pending: vec![],
            choices: vec![
                Names {
                    automatic: vec!["usual".into(), "six".into()],
                    allowed: vec!["usual".into(), "six".into(), "gold".into()],
                },
                Names { automatic: vec!["usual".into()], allowed: vec!["usual".into()] },
            ],
            namespaces: [("default".into(), 0), ("v4".into(), 1)].into(),
        }
    }

    fn texts(given: &[Assignment]) -> Vec<String> {
        given.iter().map(|a| a.address.addr().to_string()).collect()
    }

    fn request(namespace: &str, ips: &[&str], pools: &[&str]) -> Request {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let pools = pools.iter().map(|name| (*name).into()).collect();
        Request { namespace: namespace.into(), wish: Wish { ips, pools } }
    }

    #[test]
    fn a_pod_gets_an_address_of_each_family_and_never_one_that_is_held() {
        let (file, mut taken) = (file(), HashSet::new());
        let mut given = Vec::new();
        while let Ok(next) = choose(&file, &request("v4", &[], &[]), &taken, [None; 2]) {
            given.extend(texts(&next));
            taken.extend(next.iter().map(|a| a.address.addr()));
        }
        assert_eq!(given, ["10.1.0.1", "10.1.0.2", "10.1.9.2"]);
        let both = choose(&file, &request("", &[], &[]), &HashSet::new(), [None; 2]).unwrap();
        assert_eq!(texts(&both), ["10.1.0.1", "fd00::1"]);
        let later = [Some("10.1.0.1".parse().unwrap()), Some("fd00::3f".parse().unwrap())];
        let both = choose(&file, &request("default", &[], &[]), &HashSet::new(), later).unwrap();
        assert_eq!(texts(&both), ["10.1.0.2", "fd00::1"]);
    }

    #[test]
    fn a_pod_gets_what_it_asks_for_or_is_told_why_not() {
        let ask = |ips: &[&str], pools: &[&str]| {
            choose(&file(), &request("default", ips, pools), &["10.1.0.2".parse().unwrap()].into(), [None; 2])
        };
        assert_eq!(texts(&ask(&["10.1.0.3"], &[]).unwrap()), ["10.1.0.3", "fd00::1"]);
        assert_eq!(texts(&ask(&["10.1.0.3"], &["usual"]).unwrap()), ["10.1.0.3"]);
        for (ips, pools, word) in [
            (&["10.1.0.2"][..], &[][..], "is taken"),
            (&["10.1.7.7"], &[], "not with this node"),
            (&["10.1.0.0"], &[], "never given"),
            (&["10.7.0.1"], &[], "in no pool"),
            (&[], &["silver"], "pool silver"),
            (&[], &["gold"], "no block of gold"),
        ] {
            let refused = ask(ips, pools).unwrap_err().to_string();
            assert!(refused.contains(word), "{ips:?} {pools:?}: {refused}");
        }
        let gold = choose(&file(), &request("v4", &[], &["gold"]), &HashSet::new(), [None; 2]);
        assert!(gold.unwrap_err().to_string().contains("none of namespace v4"));
        let new = choose(&file(), &request("new", &[], &[]), &HashSet::new(), [None; 2]);
        assert!(matches!(new, Err(Refusal::NotYet(why)) if why.contains("namespace new")));
    }

    proptest! {
        #[test]
        fn no_file_panics_and_one_round_trips(text in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..600) {
            let _ = File::parse(&text);
            let whole = file().text();
            prop_assert_eq!(File::parse(&whole).unwrap(), file());
            let _ = File::parse(&whole[..cut.min(whole.len())]);
        }
    }
}
