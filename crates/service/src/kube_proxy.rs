//! kube-proxy on this host: two that translate one connection would not agree where it goes.

use weft_kernel::Result;
use weft_kernel::nft::{Family, Nft, Table, Transaction};

use crate::Error;
use crate::iptables::{CLUSTER_IPS, Iptables};
use crate::ipvs::kube_proxy as ipvs;

/// The file in the agent's folder by which it is told to serve Services beside kube-proxy's rules.
pub const TAKE_OVER: &str = "take-over-services";

/// Where kube-proxy's rules are in the calling thread's network namespace, in words; none where there are none.
pub fn find(nft: &mut Nft) -> Result<Option<String>> {
    for family in [Family::Ip, Family::Ip6] {
        let own = own(family);
        if nft.has_chain(&own, "services")? {
            return Ok(Some(format!("nftables table {own}")));
        }
        let nat = Table::new(family, "nat");
        // kubelet alone makes other chains of this prefix; beside the other one they are an agent's before.
        let ours = nft.has_chain(&Table::new(family, "filter"), CLUSTER_IPS)?;
        if !ours && nft.has_chain(&nat, "KUBE-SERVICES")? {
            let mode = if ipvs::is_there()? { "ipvs" } else { "iptables" };
            return Ok(Some(format!("chain KUBE-SERVICES of {nat} ({mode})")));
        }
    }
    Ok(None)
}

/// Whether virtual servers of its mode ipvs may be left.
pub fn has_servers() -> Result<bool> {
    ipvs::is_there()
}

/// The number of a process called kube-proxy, as far as this namespace of processes shows one.
pub fn process() -> Option<u32> {
    let all = std::fs::read_dir("/proc").ok()?;
    let numbers = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: &u32, file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    // One that has ended and that nobody has asked about yet has no command line.
    let mut named =
        numbers.filter(|pid| read(pid, "comm") == b"kube-proxy\n" && !read(pid, "cmdline").is_empty());
    named.next()
}

/// Removes kube-proxy's rules. Chains that an agent of mode iptables has taken over by their names stay, and virtual
/// servers, which [`crate::ipvs::kube_proxy::drain`] removes.
pub fn remove() -> std::result::Result<(), Error> {
    let mut nft = Nft::open()?;
    for family in [Family::Ip, Family::Ip6] {
        let table = own(family);
        if nft.has_chain(&table, "services")? {
            let mut transaction = Transaction::default();
            transaction.delete_table(&table);
            nft.apply(&transaction)?;
        }
    }
    if find(&mut nft)?.is_some() {
        Iptables::open()?.remove()?;
    }
    Ok(())
}

fn own(family: Family) -> Table {
    Table::new(family, "kube-proxy")
}
