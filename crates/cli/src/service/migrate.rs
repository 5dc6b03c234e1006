//! `weft service migrate-from kube-proxy`: this host's Services pass to its agent, and no established connection
//! breaks: what is translated already the kernel goes on translating, whoever's rules said so.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use weft_kernel::Netlink;
use weft_kernel::nft::Nft;
use weft_service::kube_proxy::{self, TAKE_OVER};

use crate::output::Progress;
use crate::{args, exit, output};

/// The link that kube-proxy makes in its mode ipvs.
const KUBE_IPVS: &str = "kube-ipvs0";

#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// From which proxy
    #[arg(value_enum)]
    from: Proxy,
    /// The agent's folder, where it says how Services are served
    #[arg(long, default_value = "/var/lib/weft/agent")]
    state_dir: PathBuf,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// How long the agent may take, as 90s or 2m
    #[arg(long, value_parser = args::duration, default_value = "60s")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Proxy {
    /// kube-proxy, in its modes nftables and iptables
    KubeProxy,
}

pub(super) fn run(options: &MigrateArgs) -> anyhow::Result<u8> {
    let Proxy::KubeProxy = options.from;
    let found = kube_proxy::find(&mut Nft::open()?)?;
    let Some(place) = found else {
        output::line("nothing of kube-proxy is on this host");
        return Ok(exit::DONE);
    };
    output::line(&format!("kube-proxy's rules: {place}"));
    if let Some(pid) = kube_proxy::process() {
        bail!(
            "kube-proxy runs here (process {pid}) and would bring its rules back: stop it first, in a cluster by \
             `kubectl -n kube-system patch daemonset kube-proxy -p '{{\"spec\":{{\"template\":{{\"spec\":\
             {{\"nodeSelector\":{{\"weft.dev/none\":\"\"}}}}}}}}}}'`"
        );
    }
    if Netlink::open()?.link(KUBE_IPVS)?.is_some() {
        bail!(
            "kube-proxy ran here in its mode ipvs, which cannot be taken over without a break: stop it, remove what \
             it left by `kube-proxy --cleanup`, which ends the connections that it led, and the agent serves Services"
        );
    }
    if options.dry_run {
        output::line("the agent would serve Services beside them, and then they would be removed");
        return Ok(exit::DONE);
    }
    let word = options.state_dir.join(TAKE_OVER);
    std::fs::write(&word, "").with_context(|| format!("tell the agent by {}", word.display()))?;
    let done = wait(options).and_then(|()| {
        output::line("the agent serves Services");
        Ok(kube_proxy::remove()?)
    });
    // Whether it worked or not: it counts for this once.
    std::fs::remove_file(&word).with_context(|| format!("remove {}", word.display()))?;
    done?;
    output::line("kube-proxy's rules are removed");
    Ok(exit::DONE)
}

/// Waits until the agent says that the kernel is as planned.
fn wait(options: &MigrateArgs) -> anyhow::Result<()> {
    let file = options.state_dir.join("services.json");
    let until = Instant::now() + options.timeout;
    let mut progress = Progress::new();
    loop {
        let status: Value =
            std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        if status["programmed"] == true {
            return Ok(());
        }
        if Instant::now() >= until {
            let said =
                status["errors"][0].as_str().unwrap_or("it has said nothing: does weft agent run here?");
            bail!("the agent does not serve Services ({}): {said}", file.display());
        }
        progress.say(|| "waiting for the agent".to_owned());
        std::thread::sleep(Duration::from_millis(100));
    }
}
