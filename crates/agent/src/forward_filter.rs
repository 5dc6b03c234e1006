//! Filters of other programs that drop what is forwarded: Docker sets the policy of iptables' FORWARD to DROP.

use anyhow::{Context, Result};
use ipnet::IpNet;
use weft_kernel::nft::{Family, Hook, Nft, NftEvent, Table};
use weft_kernel::xtables::{CtState, Edit, Edits, Is, Match, Rule, Target, Variant, Xtables, older_tables};
use weft_model::mark;

const FORWARD: &str = "FORWARD";
const FILTER: &str = "filter";

/// What others' filters have come to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// How many tables of iptables were changed.
    pub(crate) written: usize,
    /// What drops pods' packets and is not ours to change, each with what to do.
    pub(crate) problems: Vec<String>,
}

/// Lets pods' packets pass where iptables' FORWARD drops whatever none of its rules decides: a chain of ours behind
/// all of them, so that what a rule there drops is dropped still. It goes when the policy is ACCEPT again. Other
/// programs' policies stay as they are.
pub(crate) fn ensure(nft: &mut Nft, pods: &[IpNet]) -> Result<Found> {
    let mut found = Found::default();
    let known = Variant::find();
    for family in [Family::Ip, Family::Ip6] {
        let table = Table::new(family, FILTER);
        let older = older_tables(family).iter().any(|name| name == FILTER);
        let newer = nft.has_chain(&table, FORWARD)?;
        for legacy in [older.then_some(true), newer.then_some(false)].into_iter().flatten() {
            let mut xtables = Xtables::with(Variant { legacy, ..known.clone() });
            let edits = edits(&mut xtables, &table, pods).context("look at iptables' FORWARD")?;
            let changed = xtables.apply(&edits).context("let pods pass iptables' FORWARD")?;
            found.written += usize::from(changed);
            xtables.close_later();
        }
    }
    for (table, chain, base) in nft.base_chains()? {
        let iptables = table.name == FILTER && chain == FORWARD && table.family != Family::Inet;
        let ip = matches!(table.family, Family::Ip | Family::Ip6 | Family::Inet);
        if base.hook == Hook::Forward && base.drop && ip && !iptables {
            found.problems.push(format!(
                "nft chain {table} {chain} drops what none of its rules accepts, pods' packets too: accept {} there, \
                 as source and as destination",
                pods.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ));
        }
    }
    Ok(found)
}

fn edits(xtables: &mut Xtables, table: &Table, pods: &[IpNet]) -> Result<Vec<Edits>> {
    let ours = |net: &&IpNet| net.addr().is_ipv6() == (table.family == Family::Ip6);
    let pods: Vec<IpNet> = pods.iter().filter(ours).copied().collect();
    let edits = Edits::of(table.family, FILTER);
    if pods.is_empty() || !xtables.drops(table, FORWARD)? {
        if xtables.rules(table, mark::FORWARD_CHAIN)?.is_none() {
            return Ok(Vec::new());
        }
        let jumps = Edit::RemoveJumps { from: FORWARD.into(), to: mark::FORWARD_CHAIN.into() };
        return Ok(vec![edits.edit(jumps).edit(Edit::RemoveChain(mark::FORWARD_CHAIN.into()))]);
    }
    let known = CtState(CtState::ESTABLISHED.0 | CtState::RELATED.0);
    let mut rules: Vec<Rule> =
        pods.iter().flat_map(|net| [accept().from(*net), accept().towards(*net)]).collect();
    // A Service may lead from outside to endpoints that are no pods.
    rules.push(accept().matching(Match::Mark { value: Is::so(mark::MASQUERADE), mask: mark::MASQUERADE }));
    rules.push(accept().matching(Match::State(Is::so(known))));
    let chain = edits.edit(Edit::Chain(mark::FORWARD_CHAIN.into()));
    let chain = rules.into_iter().fold(chain, |edits, rule| edits.append(mark::FORWARD_CHAIN, rule));
    Ok(vec![chain.append(FORWARD, Rule::jump(mark::FORWARD_CHAIN))])
}

fn accept() -> Rule {
    Rule::to(Target::Accept)
}

/// Whether `event` may say that somebody's filter changed.
pub(crate) fn concerns(event: &NftEvent) -> bool {
    match event {
        NftEvent::Touched { table, .. } => !table.name.starts_with(mark::TABLE),
        NftEvent::Overrun => true,
        NftEvent::Committed { .. } => false,
    }
}
