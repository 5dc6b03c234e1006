//! One call of a CNI plugin, as a container runtime makes it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use weft_kernel::Netns;

/// How long a plugin may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What all calls for one interface have in common: the CNI_… variables.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) container_id: &'a str,
    pub(crate) netns: &'a Path,
    pub(crate) ifname: &'a str,
    pub(crate) args: &'a str,
    pub(crate) path: &'a Path,
}

#[derive(Deserialize)]
struct Refusal {
    code: u32,
    msg: String,
    #[serde(default)]
    details: String,
}

/// Runs the plugin that `config` names in the network namespace of its node; what it answered,
/// Null for nothing.
pub(crate) async fn call(
    node: &Netns,
    verb: &str,
    target: &Target<'_>,
    config: &Map<String, Value>,
) -> anyhow::Result<Value> {
    let kind = config.get("type").and_then(Value::as_str).context("a plugin of the conflist has no type")?;
    if kind.is_empty() || kind.contains('/') {
        bail!("plugin type {kind:?} of the conflist is no file name");
    }
    let mut command = Command::new(target.path.join(kind));
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", target.container_id)
        .env("CNI_NETNS", target.netns)
        .env("CNI_IFNAME", target.ifname)
        .env("CNI_ARGS", target.args)
        .env("CNI_PATH", target.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let spawned = {
        // The child inherits the calling thread's namespace.
        let _guard = node.guard()?;
        command.spawn()
    };
    let mut child = spawned.with_context(|| format!("plugin {kind} cannot be started"))?;
    let input = serde_json::to_vec(config)?;
    let exchange = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A plugin that fails before it reads says why on its output.
            let _ = stdin.write_all(&input).await;
        }
        child.wait_with_output().await
    };
    let output = timeout(PATIENCE, exchange).await;
    let output = output.with_context(|| format!("plugin {kind} did not answer for {PATIENCE:?}"))??;
    if output.status.success() {
        if output.stdout.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(&output.stdout)
            .with_context(|| format!("plugin {kind} answered with something that is no JSON"));
    }
    match serde_json::from_slice::<Refusal>(&output.stdout) {
        Ok(Refusal { code, msg, details }) if details.is_empty() => {
            bail!("plugin {kind} ({verb}): {msg} (code {code})")
        }
        Ok(Refusal { code, msg, details }) => bail!("plugin {kind} ({verb}): {msg}: {details} (code {code})"),
        Err(_) => {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("plugin {kind} ({verb}) ended with {} and no error object: {}", output.status, said.trim())
        }
    }
}
