//! `weft ipam`: pools, blocks and addresses, in the words of calicoctl.

mod release;
mod show;

use weft_ipam::pools::sweep::{Finding, sweep};
use weft_store::{Api, snapshot};

use crate::args::StatusOutput;
use crate::ipam_args::{CheckArgs, Cluster, IpamCommand};
use crate::listing::print;
use crate::{daemons, exit, output};

pub(crate) fn run(command: IpamCommand) -> anyhow::Result<u8> {
    daemons::runtime()?.block_on(async {
        match command {
            IpamCommand::Show(options) => show::run(&options).await,
            IpamCommand::Check(options) => check(&options).await,
            IpamCommand::Release(options) => release::run(&options).await,
        }
    })
}

pub(crate) async fn client(cluster: &Cluster) -> anyhow::Result<Api> {
    Ok(Api::from_kubeconfig(&cluster.kubeconfig).await?)
}

async fn check(options: &CheckArgs) -> anyhow::Result<u8> {
    let cluster = snapshot(&client(&options.cluster).await?).await?;
    // Whoever looks now and then cannot wait whether a node comes back.
    let found = sweep(&cluster, &|_| true);
    let rows = |findings: &[Finding]| {
        findings
            .iter()
            .map(|finding| {
                let fault = serde_json::to_value(finding.fault).unwrap_or_default();
                vec![
                    fault.as_str().unwrap_or_default().to_owned(),
                    finding.object.clone(),
                    finding.message.clone(),
                ]
            })
            .collect::<Vec<_>>()
    };
    if found.is_empty() && matches!(options.output, StatusOutput::Text | StatusOutput::Wide) {
        let (blocks, pools) = (cluster.blocks.len(), cluster.pools.len());
        output::line(&format!(
            "nothing is wrong: {pools} pools, {blocks} blocks, {} pods",
            cluster.pods.len()
        ));
        return Ok(exit::DONE);
    }
    print(options.output, &found, &["FAULT", "OBJECT", "WHAT"], rows(&found))?;
    Ok(if found.is_empty() { exit::DONE } else { exit::FALSE })
}
