//! `weft ipam release`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft_ipam::pools::object;
use weft_model::pools::IpBlock;
use weft_model::{Cluster, PodPhase};
use weft_store::{Api, Error, snapshot};

use super::client;
use crate::ipam_args::ReleaseArgs;
use crate::{exit, output};

/// How long the node's agent has.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often somebody else may change the block meanwhile.
const TRIES: usize = 20;

pub(super) async fn run(options: &ReleaseArgs) -> anyhow::Result<u8> {
    let (api, ip) = (client(&options.cluster).await?, options.ip);
    let cluster = snapshot(&api).await?;
    let Some(block) = holding(&cluster, ip) else {
        output::complain(&format!("{ip} is in no block: nobody has it"));
        return Ok(exit::FALSE);
    };
    let live = |phase| !matches!(phase, PodPhase::Succeeded | PodPhase::Failed);
    let pod = cluster.pods.values().find(|pod| !pod.host_network && live(pod.phase) && pod.ips.contains(&ip));
    if let Some(pod) = pod {
        output::complain(&format!("pod {} has {ip}: delete the pod", pod.key()));
        return Ok(exit::FALSE);
    }
    let Some(node) = block.borrowed.get(&ip).or(block.node.as_ref()).cloned() else {
        output::complain(&format!("the block of {ip} has no node: nobody has it"));
        return Ok(exit::FALSE);
    };
    if !cluster.nodes.contains_key(&node) {
        change(&api, &block.name, |block| _ = block.borrowed.remove(&ip)).await?;
        output::line(&format!("{ip} released: node {node} is gone"));
        return Ok(exit::DONE);
    }
    change(&api, &block.name, |block| _ = block.release.insert(ip)).await?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
        let now = snapshot(&api).await?;
        if holding(&now, ip).is_none_or(|block| !block.release.contains(&ip)) {
            output::line(&format!("{ip} released by node {node}"));
            return Ok(exit::DONE);
        }
    }
    change(&api, &block.name, |block| _ = block.release.remove(&ip)).await?;
    output::complain(&format!(
        "node {node} keeps {ip}: a container there still uses it, or its agent does not run (see its log)"
    ));
    Ok(exit::FALSE)
}

fn holding(cluster: &Cluster, ip: IpAddr) -> Option<Arc<IpBlock>> {
    cluster.blocks.values().find(|block| block.cidr.contains(&ip)).cloned()
}

/// Changes a block as it is now; one that is gone needs no change.
async fn change(api: &Api, name: &str, change: impl Fn(&mut IpBlock)) -> Result<(), Error> {
    let mut failed = None;
    for _ in 0..TRIES {
        let cluster = snapshot(api).await?;
        let Some(block) = cluster.blocks.get(name) else { return Ok(()) };
        let mut new = (**block).clone();
        change(&mut new);
        if new == **block {
            return Ok(());
        }
        match api.replace(&format!("/apis/weft.dev/v1/ipblocks/{name}"), &object(&new)).await {
            Err(error) if error.conflict() => failed = Some(error),
            other => return other.map(drop),
        }
    }
    failed.map_or(Ok(()), Err)
}
