//! The lab's API server: the process, its socket on the machine's loopback, its kubeconfigs.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fd::OwnedFd;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use weft_store::Api;

use crate::config::{API_ADDRESS, API_PORT, LabConfig};
use crate::daemon;
use crate::state::{LabInfo, LabState, write_atomically};

/// Socket activation hands over the first descriptor after the standard three.
const FIRST_PASSED: i32 = 3;
const PATIENCE: Duration = Duration::from_secs(20);

/// The command that starts the API server; `socket` listens on the machine's loopback.
pub(crate) fn command(state: &LabState, socket: &OwnedFd) -> anyhow::Result<Command> {
    let mut command = daemon::in_role(state, "apiserver")?;
    daemon::quiet(&mut command, &state.log_dir().join("apiserver.log"))?;
    command.stdin(Stdio::from(socket.try_clone()?));
    Ok(command)
}

/// Becomes `weft apiserver`, with standard input passed on as systemd passes sockets. A
/// process of its own, so that the number after the standard three is free.
pub(crate) fn become_server(state: &LabState) -> anyhow::Result<()> {
    let info = state.info()?.context("the lab is gone")?;
    let socket = rustix::io::dup(rustix::stdio::stdin())?;
    if socket.as_raw_fd() != FIRST_PASSED {
        bail!("descriptor {FIRST_PASSED} is taken: the API server's socket cannot be passed on");
    }
    let null = fs::File::open("/dev/null").context("cannot open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    let mut command = Command::new(daemon::executable()?);
    command.arg("apiserver").args(arguments(state, &info.config));
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", std::process::id().to_string());
    Err(command.env_remove(daemon::ROLE).exec()).context("cannot start weft apiserver")
}

fn arguments(state: &LabState, config: &LabConfig) -> Vec<String> {
    let mut arguments = vec![
        "--data-dir".into(),
        state.api_dir().display().to_string(),
        "--listen".into(),
        format!("{API_ADDRESS}:{API_PORT}"),
        "--node-cidr-mask-size".into(),
        config.node_mask.to_string(),
    ];
    for name in ["127.0.0.1", "localhost", &API_ADDRESS.to_string()] {
        arguments.extend(["--tls-san".into(), name.into()]);
    }
    for cidr in &config.pod_cidrs {
        arguments.extend(["--cluster-cidr".into(), cidr.to_string()]);
    }
    arguments
}

/// Waits until the API server answers, and writes both kubeconfigs.
pub(crate) async fn wait_ready(state: &LabState, info: &LabInfo) -> anyhow::Result<Api> {
    let deadline = Instant::now() + PATIENCE;
    let admin = state.api_dir().join("admin.kubeconfig");
    loop {
        let error = match try_ready(state, info, &admin).await {
            Ok(api) => return Ok(api),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            let log = state.log_dir().join("apiserver.log");
            return Err(error.context(format!("the API server does not answer; see {}", log.display())));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn try_ready(state: &LabState, info: &LabInfo, admin: &Path) -> anyhow::Result<Api> {
    let text = fs::read_to_string(admin).with_context(|| format!("cannot read {}", admin.display()))?;
    let inside = format!("https://{API_ADDRESS}:{API_PORT}");
    write_atomically(&state.kubeconfig_inside(), with_server(&text, &inside)?.as_bytes())?;
    let api = Api::from_kubeconfig(&state.kubeconfig_inside()).await?;
    api.get("/api/v1/namespaces/default").await?;
    let outside = format!("https://127.0.0.1:{}", info.api_port);
    write_atomically(&state.kubeconfig(), with_server(&text, &outside)?.as_bytes())?;
    Ok(api)
}

/// The kubeconfig with another server.
fn with_server(kubeconfig: &str, server: &str) -> anyhow::Result<String> {
    let mut config: Value = serde_saphyr::from_str(kubeconfig).context("the admin kubeconfig is no YAML")?;
    let clusters = config.get_mut("clusters").and_then(Value::as_array_mut);
    for cluster in clusters.context("the admin kubeconfig has no clusters")? {
        cluster["cluster"]["server"] = server.into();
    }
    // JSON is YAML: every client reads it.
    Ok(serde_json::to_string_pretty(&config)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_server_of_a_kubeconfig_changes() {
        let text = "clusters:\n- name: weft\n  cluster:\n    server: https://10.168.0.1:6443\n    \
                    certificate-authority-data: QQ==\nusers: []\n";
        let changed: Value =
            serde_json::from_str(&with_server(text, "https://127.0.0.1:1").unwrap()).unwrap();
        assert_eq!(changed["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1");
        assert_eq!(changed["clusters"][0]["cluster"]["certificate-authority-data"], "QQ==");
        assert!(with_server("clusters: 3", "x").is_err());
    }
}
