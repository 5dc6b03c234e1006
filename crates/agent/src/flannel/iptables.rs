//! Flannel's chains of iptables, of both its variants: a host has those of the one that flannel ran with,
//! whichever is called `iptables` now.

use std::fs;
use std::io;
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use weft_kernel::nft::{Family, Table};

/// Table, flannel's chain in it, and the chain that leads there.
const CHAINS: [(&str, &str, &str); 2] =
    [("nat", "FLANNEL-POSTRTG", "POSTROUTING"), ("filter", ACCEPTS, "FORWARD")];
/// Lets pods' packets through; where Docker has made `FORWARD` drop by default nothing else does.
const ACCEPTS: &str = "FLANNEL-FWD";

/// Removes the chains and the rules that lead to them; `tables` are all of nftables. `step` says whether what it
/// is told is to be done.
pub(super) fn remove(tables: &[Table], step: &mut dyn FnMut(&str) -> bool) -> Result<()> {
    let families =
        [("iptables", Family::Ip, "ip_tables_names"), ("ip6tables", Family::Ip6, "ip6_tables_names")];
    for (program, family, names) in families {
        // Only to list a table that is not there, iptables would make it.
        let legacy = fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        for (table, chain, from) in CHAINS {
            if tables.iter().any(|found| found.family == family && found.name == table) {
                Iptables { program, variant: "nft", table }.remove(chain, from, step)?;
            }
            if legacy.lines().any(|found| found == table) {
                Iptables { program, variant: "legacy", table }.remove(chain, from, step)?;
            }
        }
    }
    Ok(())
}

/// One table of one variant.
struct Iptables {
    program: &'static str,
    variant: &'static str,
    table: &'static str,
}

impl Iptables {
    fn name(&self) -> String {
        format!("{}-{}", self.program, self.variant)
    }

    /// By the variant's own name, or where that is not installed by the one that every host has.
    fn run(&self, arguments: &[&str]) -> io::Result<Output> {
        let run = |name: &str| Command::new(name).args(["-w", "-t", self.table]).args(arguments).output();
        match run(&self.name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => run(self.program),
            other => other,
        }
    }

    fn remove(&self, chain: &str, from: &str, step: &mut dyn FnMut(&str) -> bool) -> Result<()> {
        // Without the program there is nobody to remove them; without the chain there is nothing.
        if !self.run(&["-n", "-L", chain]).is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        let listed = self.done(&["-S", from])?;
        if chain == ACCEPTS && !listed.lines().any(|line| line == format!("-P {from} ACCEPT")) {
            step(&format!("keep the {} chain {chain}: {from} drops what nobody accepts", self.name()));
            return Ok(());
        }
        if !step(&format!("remove the {} chain {chain} of table {}", self.name(), self.table)) {
            return Ok(());
        }
        let jump = format!("-j {chain}");
        for rule in listed.lines().filter(|rule| rule.ends_with(&jump)) {
            let words = words(&rule.replacen("-A", "-D", 1));
            self.done(&words.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        self.done(&["-F", chain])?;
        self.done(&["-X", chain])?;
        Ok(())
    }

    /// Its standard output, if it ends well.
    fn done(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).with_context(|| format!("start {}", self.name()))?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{} -t {} {}: {}", self.name(), self.table, arguments.join(" "), told.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// The words of a rule as iptables lists it, with its comments in quotes.
fn words(rule: &str) -> Vec<String> {
    let parts = rule.split('"').enumerate();
    let words = parts.flat_map(|(i, part)| match i % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_rule_becomes_words() {
        let rule = r#"-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG"#;
        let words = words(rule);
        assert_eq!(words[5..], ["flanneld masq", "-j", "FLANNEL-POSTRTG"]);
    }
}
