//! `weft service migrate-from kube-proxy`: this host's Services pass to its agent, and no established connection
//! breaks: what is translated already the kernel goes on translating, whoever's rules said so, and virtual servers
//! stay until their connections have ended.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use weft_kernel::nft::Nft;
use weft_service::ipvs::kube_proxy::drain;
use weft_service::kube_proxy::{self, TAKE_OVER};

use crate::output::Progress;
use crate::{args, exit, output};

/// How long what nobody uses any more may take to go.
const SHORT: Duration = Duration::from_secs(3);

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
    /// kube-proxy, in any of its modes
    KubeProxy,
}

pub(super) fn run(options: &MigrateArgs) -> anyhow::Result<u8> {
    let Proxy::KubeProxy = options.from;
    let found = kube_proxy::find(&mut Nft::open()?)?;
    let Some(place) = found else {
        output::line(match kube_proxy::has_servers()? {
            true => {
                "connections go on by kube-proxy's virtual servers, which the agent removes when they have ended"
            }
            false => "nothing of kube-proxy is on this host",
        });
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
    let until = Instant::now() + SHORT;
    while !drain()? {
        if Instant::now() >= until {
            output::line(
                "connections go on by its virtual servers, which the agent removes when they have ended",
            );
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
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
