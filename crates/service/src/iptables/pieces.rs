//! Many chains at once, written piece by piece: iptables-nft's time grows with the square of a script's chains.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::tables::{Chain, Table, Tables};

/// As many chains are written in one script.
const PIECE: usize = 1000;

impl Tables {
    /// The chains that are better written before the script, in pieces, each of which has what the later lead to;
    /// nothing is led to them yet, or what is still finds what it did. None where the script alone will do.
    pub(super) fn pieces(&self) -> Vec<Vec<Chain>> {
        let mut by_rank: BTreeMap<u8, Vec<&Chain>> = BTreeMap::new();
        for (chain, _) in self.chains.pending_updates() {
            if let Some(rank) = rank(chain) {
                by_rank.entry(rank).or_default().push(chain);
            }
        }
        let chains: Vec<Chain> = by_rank.into_values().flatten().cloned().collect();
        if chains.len() <= PIECE {
            return Vec::new();
        }
        chains.chunks(PIECE).map(<[Chain]>::to_vec).collect()
    }

    /// The script of a piece.
    pub(super) fn piece(&self, chains: &[Chain]) -> String {
        let mut out = format!("*{}\n", Table::Nat.name());
        for chain in chains {
            let _ = writeln!(out, ":{} - [0:0]", chain.name);
        }
        chains
            .iter()
            .filter_map(|chain| self.chains.desired().get(chain))
            .for_each(|text| out.push_str(text));
        out.push_str("COMMIT\n");
        out
    }

    /// The script of a piece was done.
    pub(super) fn piece_done(&mut self, chains: Vec<Chain>) {
        for chain in chains {
            if let Some(text) = self.chains.desired().get(&chain).cloned() {
                self.chains.observe(chain, text);
            }
        }
    }
}

/// How far a chain of nat is from where packets end; none for those by which they come in.
fn rank(chain: &Chain) -> Option<u8> {
    if chain.table != Table::Nat || matches!(&*chain.name, "KUBE-SERVICES" | "KUBE-NODEPORTS") {
        return None;
    }
    let ranks = ["KUBE-SEP-", "KUBE-SV", "KUBE-EXT-", "KUBE-FW-"];
    Some((1..).zip(ranks).find(|(_, prefix)| chain.name.starts_with(prefix)).map_or(0, |(rank, _)| rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_led_to_comes_first() {
        let rank = |name: &str| rank(&Chain { table: Table::Nat, name: name.into() });
        let order = ["KUBE-MARK-MASQ", "KUBE-SEP-A", "KUBE-SVC-A", "KUBE-EXT-A", "KUBE-FW-A"].map(rank);
        assert!(order.is_sorted() && order[0] < order[4] && rank("KUBE-SVL-A") == rank("KUBE-SVC-A"));
        assert_eq!(rank("KUBE-SERVICES"), None);
    }
}
