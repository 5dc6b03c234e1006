//! `macspoofchk` of the bridge plugin: what a container sends with another source hardware address
//! than its own is dropped.
//!
//! As the reference, each attachment has two chains in the table `bridge nat`: one for its host
//! link, which `PREROUTING` jumps to, and behind it one that lets the right address pass.

use weft_kernel::nft::{Base, ChainKind, Expr, Family, Hook, Nft, Rule, Table, Transaction};
use weft_model::Mac;

use crate::netfilter::{missing, with_nft};
use crate::protocol::args::Args;
use crate::protocol::error::CniError;

const PREROUTING: &str = "PREROUTING";
const PRIORITY: i32 = -300;

/// The guard of one attachment.
#[derive(Clone, Debug)]
pub(crate) struct SpoofGuard {
    /// The chain for the host link.
    link_chain: String,
    /// The chain that compares the address.
    mac_chain: String,
    comment: String,
}

impl SpoofGuard {
    /// Of the attachment that a call is about.
    pub(crate) fn of(args: &Args) -> SpoofGuard {
        let reference = format!("{}-{}", args.container_id, args.ifname);
        let link_chain = format!("cni-br-iface-{reference}");
        SpoofGuard {
            mac_chain: format!("{link_chain}-mac"),
            comment: format!("macspoofchk-{reference}"),
            link_chain,
        }
    }

    /// Lets pass only what comes from the link `host_link` with the address `mac`.
    pub(crate) fn add(&self, host_link: &str, mac: Mac) -> Result<(), CniError> {
        with_nft(|nft| nft.change(|nft| self.transaction(nft, host_link, mac)).map(drop))
    }

    /// Removes it; what is not there is no error.
    pub(crate) fn remove(&self) -> Result<(), CniError> {
        with_nft(|nft| nft.change(|nft| self.removal(nft)).map(drop))
    }

    /// Whether it is there.
    pub(crate) fn check(&self, host_link: &str, mac: Mac) -> Result<(), CniError> {
        let mut nft = Nft::open()?;
        for (chain, wanted) in self.rules(host_link, mac) {
            let rules = nft.chain_rules(&table(), chain)?.unwrap_or_default();
            if let Some(rule) = wanted.iter().find(|rule| !rules.iter().any(|live| live.rule == **rule)) {
                return Err(missing(format!(
                    "macspoofchk: table bridge nat chain {chain} has no rule `{rule}`"
                )));
            }
        }
        Ok(())
    }

    fn rules(&self, host_link: &str, mac: Mac) -> [(&str, Vec<Rule>); 3] {
        let rule = |exprs: Vec<Expr>| Rule::new(&self.comment, exprs);
        let jump = |chain: &str| Expr::Jump(chain.to_owned());
        [
            (PREROUTING, vec![rule(vec![Expr::iifname(host_link), jump(&self.link_chain)])]),
            (&self.link_chain, vec![rule(vec![jump(&self.mac_chain)])]),
            (&self.mac_chain, vec![rule(vec![Expr::EtherSource(mac), Expr::Return]), rule(vec![Expr::Drop])]),
        ]
    }

    fn transaction(&self, nft: &mut Nft, host_link: &str, mac: Mac) -> Result<Transaction, CniError> {
        let table = table();
        let mut t = Transaction::default();
        t.add_table(&table, false);
        let base = Base { kind: ChainKind::Filter, hook: Hook::Prerouting, priority: PRIORITY, drop: false };
        nft.ensure_chain(&mut t, &table, PREROUTING, Some(base), "")?;
        for chain in [&self.link_chain, &self.mac_chain] {
            nft.ensure_chain(&mut t, &table, chain, None, "")?;
            if nft.has_chain(&table, chain)? {
                t.flush_chain(&table, chain);
            }
        }
        for (chain, rules) in self.rules(host_link, mac) {
            rules.iter().for_each(|rule| t.add_rule(&table, chain, rule));
        }
        Ok(t)
    }

    fn removal(&self, nft: &mut Nft) -> Result<Transaction, CniError> {
        let table = table();
        let mut t = Transaction::default();
        let own: Vec<&String> = [&self.link_chain, &self.mac_chain]
            .into_iter()
            .filter_map(|chain| nft.has_chain(&table, chain).map(|there| there.then_some(chain)).transpose())
            .collect::<Result<_, _>>()?;
        if own.is_empty() {
            return Ok(t);
        }
        for live in nft.chain_rules(&table, PREROUTING)?.unwrap_or_default() {
            if live.rule.comment == Rule::new(&self.comment, []).comment {
                t.delete_rule(&table, PREROUTING, live.handle);
            }
        }
        own.into_iter().for_each(|chain| t.delete_chain(&table, chain));
        Ok(t)
    }
}

fn table() -> Table {
    Table::new(Family::Bridge, "nat")
}
