//! `weft ipam show`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;
use weft_ipam::pools::{Catalogue, usable};
use weft_model::pools::IpBlock;
use weft_model::{Cluster, PodPhase};
use weft_store::snapshot;

use super::client;
use crate::args::StatusOutput;
use crate::ipam_args::ShowArgs;
use crate::listing::print;
use crate::{exit, output};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PoolRow {
    name: String,
    cidr: IpNet,
    block_size: u8,
    /// How many blocks are claimed.
    blocks: usize,
    /// Of how many.
    blocks_total: u128,
    in_use: usize,
    total: u128,
    nat_outgoing: bool,
    assignment: &'static str,
    state: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BlockRow {
    cidr: IpNet,
    pool: String,
    node: Option<String>,
    in_use: usize,
    free: usize,
    /// Addresses that other nodes have borrowed, and which.
    lent: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AddressRow {
    ip: IpAddr,
    pool: Option<String>,
    block: Option<IpNet>,
    node: Option<String>,
    borrowed_by: Option<String>,
    pods: Vec<String>,
    wanted_by: Vec<String>,
}

pub(super) async fn run(options: &ShowArgs) -> anyhow::Result<u8> {
    let cluster = snapshot(&client(&options.cluster).await?).await?;
    if let Some(ip) = options.ip {
        return address(&cluster, ip, options.output);
    }
    let wide = options.output == StatusOutput::Wide;
    if options.blocks {
        let rows: Vec<BlockRow> = cluster.blocks.values().map(|block| block_row(&cluster, block)).collect();
        let cells = rows.iter().map(|row| {
            let lent = if wide { row.lent.join(",") } else { row.lent.len().to_string() };
            let node = row.node.clone().unwrap_or_else(|| "-".into());
            vec![
                row.cidr.to_string(),
                row.pool.clone(),
                node,
                row.in_use.to_string(),
                row.free.to_string(),
                lent,
            ]
        });
        let cells = cells.collect();
        print(options.output, &rows, &["BLOCK", "POOL", "NODE", "IPS IN USE", "IPS FREE", "LENT"], cells)?;
        return Ok(exit::DONE);
    }
    let rows = pools(&cluster);
    let mut head = vec!["POOL", "CIDR", "BLOCKS", "IPS TOTAL", "IPS IN USE", "IPS FREE", "STATE"];
    head.extend(wide.then_some(["BLOCK SIZE", "NAT", "ASSIGNMENT"]).into_iter().flatten());
    let cells = rows.iter().map(|row| {
        let free = row.total.saturating_sub(row.in_use as u128);
        let mut cells = vec![
            row.name.clone(),
            row.cidr.to_string(),
            format!("{}/{}", row.blocks, row.blocks_total),
            row.total.to_string(),
            row.in_use.to_string(),
            free.to_string(),
            row.state.clone(),
        ];
        if wide {
            cells.extend([
                row.block_size.to_string(),
                row.nat_outgoing.to_string(),
                row.assignment.to_owned(),
            ]);
        }
        cells
    });
    let cells = cells.collect();
    print(options.output, &rows, &head, cells)?;
    Ok(exit::DONE)
}

fn pools(cluster: &Cluster) -> Vec<PoolRow> {
    let (catalogue, used) = (Catalogue::of(cluster), in_use(cluster));
    let row = |pool: &std::sync::Arc<weft_model::pools::IpPool>| {
        let bits = u32::from(pool.block_size.saturating_sub(pool.cidr.prefix_len())).min(127);
        let (count, each) = (1u128 << bits, usable(pool.block_size, pool.cidr.addr().is_ipv4()) as u128);
        let usable = catalogue.get(&pool.name).is_some();
        let state = match (usable, pool.disabled) {
            (false, _) => "unusable",
            (true, true) => "disabled",
            (true, false) => "enabled",
        };
        PoolRow {
            name: pool.name.to_string(),
            cidr: pool.cidr,
            block_size: pool.block_size,
            blocks: cluster.blocks.values().filter(|block| block.pool == pool.name).count(),
            blocks_total: count,
            in_use: used.iter().filter(|ip| pool.cidr.contains(*ip)).count(),
            total: count.saturating_mul(each),
            nat_outgoing: pool.nat_outgoing,
            assignment: if pool.manual { "Manual" } else { "Automatic" },
            state: state.to_owned(),
        }
    };
    cluster.pools.values().map(row).collect()
}

fn block_row(cluster: &Cluster, block: &IpBlock) -> BlockRow {
    let used = in_use(cluster);
    let used = used.range(block.cidr.network()..=block.cidr.broadcast()).count();
    let total = usable(block.cidr.prefix_len(), block.cidr.addr().is_ipv4());
    BlockRow {
        cidr: block.cidr,
        pool: block.pool.to_string(),
        node: block.node.as_ref().map(ToString::to_string),
        in_use: used,
        free: total.saturating_sub(used),
        lent: block.borrowed.iter().map(|(ip, node)| format!("{ip}={node}")).collect(),
    }
}

/// The addresses that pods have by the API.
fn in_use(cluster: &Cluster) -> BTreeSet<IpAddr> {
    let live = |phase| !matches!(phase, PodPhase::Succeeded | PodPhase::Failed);
    let pods = cluster.pods.values().filter(|pod| !pod.host_network && live(pod.phase));
    pods.flat_map(|pod| pod.ips.iter().copied()).collect()
}

fn address(cluster: &Cluster, ip: IpAddr, how: StatusOutput) -> anyhow::Result<u8> {
    let catalogue = Catalogue::of(cluster);
    let block = cluster.blocks.values().find(|block| block.cidr.contains(&ip));
    let has = cluster.pods.values().filter(|pod| !pod.host_network && pod.ips.contains(&ip));
    let wants =
        cluster.pods.values().filter(|pod| pod.wish.as_ref().is_some_and(|wish| wish.ips.contains(&ip)));
    let row = AddressRow {
        ip,
        pool: catalogue.around(&ip.into()).map(|pool| pool.name.to_string()),
        block: block.map(|block| block.cidr),
        node: block.and_then(|block| block.node.as_ref()).map(ToString::to_string),
        borrowed_by: block.and_then(|block| block.borrowed.get(&ip)).map(ToString::to_string),
        pods: has.map(|pod| pod.key().to_string()).collect(),
        wanted_by: wants.map(|pod| pod.key().to_string()).collect(),
    };
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".into());
    let lines = [
        ("IP", ip.to_string()),
        ("POOL", text(row.pool.clone())),
        ("BLOCK", text(row.block.map(|net| net.to_string()))),
        ("NODE", text(row.node.clone())),
        ("BORROWED BY", text(row.borrowed_by.clone())),
        ("PODS", text((!row.pods.is_empty()).then(|| row.pods.join(", ")))),
        ("ASKED FOR BY", text((!row.wanted_by.is_empty()).then(|| row.wanted_by.join(", ")))),
    ];
    match how {
        StatusOutput::Json => output::line(&serde_json::to_string_pretty(&row)?),
        StatusOutput::Yaml => output::print(&serde_saphyr::to_string(&row)?),
        _ => lines.iter().for_each(|(key, value)| output::line(&format!("{key:<13} {value}"))),
    }
    Ok(if row.pool.is_some() || row.block.is_some() { exit::DONE } else { exit::FALSE })
}
