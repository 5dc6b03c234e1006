//! One call of one plugin: in this process if it is ours, else by executing it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weft_kernel::{Netlink, Netns};

use super::Target;
use crate::protocol::args::{Args, Command};
use crate::protocol::error::{CniError, code};
use crate::protocol::exec;
use crate::{is_own, perform};

/// Calls the plugin that `config` names; what it answered, Null for nothing.
pub(super) fn call(
    path: &[PathBuf],
    command: &str,
    target: &Target,
    config: &Value,
) -> Result<Value, CniError> {
    let kind = config.get("type").and_then(Value::as_str).unwrap_or_default();
    let env = environment(path, command, target);
    let lookup = |key: &str| env.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone());
    let verb = Command::from_env(&lookup)?;
    let args = Args::from_env(verb, &lookup)?;
    let input = config.to_string().into_bytes();
    if is_own(kind) {
        let mut answered = Value::Null;
        perform(verb, args, input, &mut |answer| {
            answered = answer;
            Ok(())
        })?;
        return Ok(answered);
    }
    let output = exec::call(&exec::find_in("type", kind, path)?, command, &args, &input)?;
    if output.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output)
        .map_err(|error| CniError::new(code::DECODE, format!("cannot decode its answer: {error}")))
}

/// Whether the interface is there; what cannot be known is.
pub(super) fn has_interface(target: &Target) -> bool {
    let Some(path) = target.netns.as_deref().filter(|path| path.exists()) else { return false };
    let link = |path: &Path| Netlink::open_in(&Netns::open(path)?)?.link(&target.ifname);
    link(path).map_or(true, |link| link.is_some())
}

fn environment(path: &[PathBuf], command: &str, target: &Target) -> Vec<(&'static str, OsString)> {
    let pairs: Vec<String> = target.args.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let netns = target.netns.as_ref().map(|path| path.clone().into_os_string());
    vec![
        ("CNI_COMMAND", command.into()),
        ("CNI_CONTAINERID", target.container_id.clone().into()),
        ("CNI_NETNS", netns.unwrap_or_default()),
        ("CNI_IFNAME", target.ifname.clone().into()),
        ("CNI_ARGS", pairs.join(";").into()),
        ("CNI_PATH", std::env::join_paths(path).unwrap_or_default()),
    ]
}
