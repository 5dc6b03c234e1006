//! Masquerading of containers' traffic (`ipMasq`): what a container sends to anywhere but its own
//! subnet and multicast groups leaves with the node's address.
//!
//! With iptables each container has a chain in the `nat` tables that `POSTROUTING` jumps to from
//! its addresses; with nftables each address has a rule in the chain `masq_checks` of the table
//! `inet cni_plugins_masquerade`.

use std::net::IpAddr;

use ipnet::IpNet;
use weft_kernel::nft::{Base, ChainKind, Expr, Family, Hook, Nft, Rule, Table, Transaction};
use weft_kernel::xtables::{Edit, Edits, Is, Rule as XtRule, Target, Xtables};

use crate::chained::hashed_name;
use crate::netfilter::{Backend, chain_name, family, host, missing, with_nft};
use crate::protocol::args::Args;
use crate::protocol::config::ValidAttachment;
use crate::protocol::error::CniError;

const TABLE: &str = "cni_plugins_masquerade";
const TABLE_COMMENT: &str = "Masquerading for plugins from github.com/containernetworking/plugins";
const CHECKS: &str = "masq_checks";
const CHECKS_COMMENT: &str =
    "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet";
const POSTROUTING: &str = "postrouting";
/// After other source translation (`srcnat`).
const PRIORITY: i32 = 100;
/// Length of the hashes that a comment begins with.
const HASH: usize = 16;
/// nft's longest comment.
const COMMENT: usize = 128;

/// Whose traffic: one attachment of a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Masquerade<'a> {
    /// The network's name.
    pub(crate) network: &'a str,
    /// The container.
    pub(crate) container_id: &'a str,
    /// Its interface.
    pub(crate) ifname: &'a str,
}

impl<'a> Masquerade<'a> {
    /// Of the attachment that a call is about.
    pub(crate) fn of(network: &'a str, args: &'a Args) -> Masquerade<'a> {
        Masquerade { network, container_id: &args.container_id, ifname: &args.ifname }
    }

    /// Masquerades what `addresses` send; each with its subnet's prefix length.
    pub(crate) fn add(&self, backend: Backend, addresses: &[IpNet]) -> Result<(), CniError> {
        match backend {
            Backend::Iptables => {
                let mut xtables = Xtables::open();
                let done = xtables.apply(&self.edits(addresses));
                xtables.close_later();
                Ok(done.map(drop)?)
            }
            Backend::Nftables => with_nft(|nft| nft.change(|nft| self.transaction(nft, addresses)).map(drop)),
        }
    }

    /// Removes the rules of this attachment, of whichever backend and program. What is not there
    /// costs a question.
    pub(crate) fn remove(&self) -> Result<(), CniError> {
        let mut xtables = Xtables::open();
        let by_iptables = xtables.apply(&self.removal());
        xtables.close_later();
        let by_nftables = with_nft(|nft| nft.change(|nft| self.own_rules_removed(nft)).map(drop));
        by_iptables?;
        by_nftables
    }

    /// Whether what [`Masquerade::add`] made is there.
    pub(crate) fn check(&self, backend: Backend, addresses: &[IpNet]) -> Result<(), CniError> {
        match backend {
            Backend::Iptables => self.check_iptables(addresses),
            Backend::Nftables => {
                let rules = Nft::open()?.chain_rules(&table(), CHECKS)?.unwrap_or_default();
                let wanted = self.rules(addresses);
                match wanted.iter().find(|rule| !rules.iter().any(|live| live.rule == **rule)) {
                    Some(rule) => Err(missing(format!("table inet {TABLE} has no rule `{rule}`"))),
                    None => Ok(()),
                }
            }
        }
    }

    fn check_iptables(&self, addresses: &[IpNet]) -> Result<(), CniError> {
        let mut xtables = Xtables::open();
        for edits in self.edits(addresses) {
            for edit in &edits.edits {
                let Edit::Rule { chain, rule, .. } = edit else { continue };
                let rules = xtables.rules(&edits.table, chain)?.unwrap_or_default();
                if !rules.contains(rule) {
                    return Err(missing(format!(
                        "chain {chain} of table {} has no rule `{rule}`",
                        edits.table
                    )));
                }
            }
        }
        Ok(())
    }

    /// The changes of `ip nat` and `ip6 nat`.
    fn edits(&self, addresses: &[IpNet]) -> Vec<Edits> {
        let chain = chain_name("", self.network, self.container_id);
        let comment = format!("name: \"{}\" id: \"{}\"", self.network, self.container_id);
        let mut out = Vec::new();
        for of in [Family::Ip, Family::Ip6] {
            let ours = addresses.iter().filter(|net| family(net.addr()) == of);
            let mut edits = Edits::of(of, "nat").edit(Edit::Chain(chain.clone()));
            for net in ours {
                let own = XtRule::to(Target::Accept).towards(*net).comment(&comment);
                let mut rest = XtRule::to(Target::Masquerade).comment(&comment);
                rest.destination = Some(Is::not(multicast(net.addr())));
                edits = edits
                    .append(&chain, own)
                    .append(&chain, rest)
                    .append("POSTROUTING", XtRule::jump(&chain).from(host(net)).comment(&comment));
            }
            if edits.edits.len() > 1 {
                out.push(edits);
            }
        }
        out
    }

    fn removal(&self) -> Vec<Edits> {
        let chain = chain_name("", self.network, self.container_id);
        let of = |family| {
            Edits::of(family, "nat")
                .edit(Edit::RemoveJumps { from: "POSTROUTING".into(), to: chain.clone() })
                .edit(Edit::RemoveChain(chain.clone()))
        };
        vec![of(Family::Ip), of(Family::Ip6)]
    }

    /// The rules in the chain `masq_checks`.
    fn rules(&self, addresses: &[IpNet]) -> Vec<Rule> {
        let rule = |net: &IpNet| Rule {
            exprs: vec![
                Expr::saddr(host(net)),
                Expr::daddr(net.trunc()).negated(),
                Expr::Masquerade { random_fully: false },
            ],
            comment: self.comment(),
        };
        addresses.iter().map(rule).collect()
    }

    /// Begins with what finds it again, however much of the rest is cut.
    fn comment(&self) -> String {
        let mut text =
            format!("{}, net: {}, if: {}, id: {}", self.mark(), self.network, self.ifname, self.container_id);
        text.truncate(COMMENT);
        text
    }

    fn mark(&self) -> String {
        let instance = hashed_name("", &format!("{}:{}", self.ifname, self.container_id), HASH);
        format!("{}-{instance}", network_mark(self.network))
    }

    fn transaction(&self, nft: &mut Nft, addresses: &[IpNet]) -> Result<Transaction, CniError> {
        let table = table();
        let mut t = self.own_rules_removed(nft)?;
        t.add_commented_table(&table, TABLE_COMMENT);
        nft.ensure_chain(&mut t, &table, CHECKS, None, CHECKS_COMMENT)?;
        let base = Base { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: PRIORITY, drop: false };
        nft.ensure_chain(&mut t, &table, POSTROUTING, Some(base), "")?;
        let wanted = postrouting();
        let there = nft.chain_rules(&table, POSTROUTING)?.unwrap_or_default();
        if !there.iter().map(|live| &live.rule).eq(wanted.iter()) {
            if !there.is_empty() {
                t.flush_chain(&table, POSTROUTING);
            }
            wanted.iter().for_each(|rule| t.add_rule(&table, POSTROUTING, rule));
        }
        self.rules(addresses).iter().for_each(|rule| t.add_rule(&table, CHECKS, rule));
        Ok(t)
    }

    fn own_rules_removed(&self, nft: &mut Nft) -> Result<Transaction, CniError> {
        let mark = self.mark();
        removed(nft, &mark, |comment| comment.starts_with(&mark))
    }
}

/// Removes the rules of a network that belong to none of the attachments. Those of the iptables
/// backend name no network in a way that could be searched, as with the reference: their names are
/// tried for no other attachment.
pub(crate) fn gc(network: &str, valid: &[ValidAttachment]) -> Result<(), CniError> {
    let of =
        |a: &ValidAttachment| Masquerade { network, container_id: &a.container_id, ifname: &a.ifname }.mark();
    let valid: Vec<String> = valid.iter().map(of).collect();
    let ours = format!("{}-", network_mark(network));
    let stale =
        |comment: &str| comment.starts_with(&ours) && !valid.iter().any(|mark| comment.starts_with(mark));
    with_nft(|nft| nft.change(|nft| removed(nft, &ours, stale)).map(drop))
}

fn removed(nft: &mut Nft, mark: &str, stale: impl Fn(&str) -> bool) -> Result<Transaction, CniError> {
    let table = table();
    let mut transaction = Transaction::default();
    for live in nft.rules_mentioning(&table, CHECKS, mark)? {
        if stale(&live.rule.comment) {
            transaction.delete_rule(&table, CHECKS, live.handle);
        }
    }
    Ok(transaction)
}

fn table() -> Table {
    Table::new(Family::Inet, TABLE)
}

fn network_mark(network: &str) -> String {
    hashed_name("", network, HASH)
}

fn postrouting() -> Vec<Rule> {
    let group = |ip: IpAddr| Rule::new("", [Expr::daddr(multicast(ip)), Expr::Return]);
    vec![
        group(IpAddr::from([0; 4])),
        group(IpAddr::from([0; 16])),
        Rule::new("", [Expr::Goto(CHECKS.into())]),
    ]
}

/// The multicast groups of the address's family.
fn multicast(ip: IpAddr) -> IpNet {
    let groups = match ip {
        IpAddr::V4(_) => IpNet::new(IpAddr::from([224, 0, 0, 0]), 4),
        IpAddr::V6(_) => IpNet::new(IpAddr::from([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8),
    };
    groups.unwrap_or(IpNet::from(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Masquerade<'_> = Masquerade { network: "net", container_id: "c1", ifname: "eth0" };

    #[test]
    fn iptables_rules_spare_the_own_subnet_and_multicast() {
        let addresses = ["10.9.0.2/24", "fd00:9::2/64"].map(|net| net.parse().unwrap());
        let edits = OURS.edits(&addresses);
        let shown: Vec<String> = edits
            .iter()
            .flat_map(|edits| {
                edits.edits.iter().map(|edit| match edit {
                    Edit::Rule { rule, .. } => format!("{}: {rule}", edits.table.family),
                    other => format!("{other:?}"),
                })
            })
            .collect();
        let chain = chain_name("", "net", "c1");
        let comment = "-m comment --comment \"name: \\\"net\\\" id: \\\"c1\\\"\"";
        let of = |family: &str, host: &str, subnet: &str, groups: &str| {
            vec![
                format!("Chain(\"{chain}\")"),
                format!("{family}: -d {subnet} {comment} -j ACCEPT"),
                format!("{family}: ! -d {groups} {comment} -j MASQUERADE"),
                format!("{family}: -s {host} {comment} -j {chain}"),
            ]
        };
        let v4 = of("ip", "10.9.0.2/32", "10.9.0.0/24", "224.0.0.0/4");
        assert_eq!(shown, [v4, of("ip6", "fd00:9::2/128", "fd00:9::/64", "ff00::/8")].concat());
    }

    #[test]
    fn a_comment_is_cut_behind_what_finds_it() {
        let long = "x".repeat(200);
        let one = Masquerade { container_id: &long, ..OURS };
        assert_eq!(one.comment().len(), COMMENT);
        assert!(one.comment().starts_with(&one.mark()) && one.mark().len() == 33);
        assert_ne!(one.mark(), OURS.mark());
    }
}
