//! Other programs' plugins.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::args::Args;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};

/// More than any result holds; a plugin that says more is stopped.
const LONGEST: u64 = 4 << 20;

/// The program of an IPAM type in CNI_PATH.
pub(crate) fn find(kind: &str, args: &Args) -> Result<PathBuf, CniError> {
    find_in("ipam.type", kind, &args.path)
}

/// The program of the plugin that `key` of the configuration names, in these folders.
pub(crate) fn find_in(key: &str, kind: &str, path: &[PathBuf]) -> Result<PathBuf, CniError> {
    let plain = !kind.is_empty() && !kind.starts_with('.') && !kind.contains(['/', '\0']);
    if !plain {
        return Err(invalid(&format!("{key}: {kind:?} is no plugin's name")));
    }
    let file =
        |dir: &PathBuf| Some(dir.join(kind)).filter(|path| fs::metadata(path).is_ok_and(|m| m.is_file()));
    let missing = || {
        let dirs: Vec<String> = path.iter().map(|dir| dir.display().to_string()).collect();
        invalid(&format!("{key}: there is no plugin {kind:?} in CNI_PATH ({})", dirs.join(", ")))
    };
    path.iter().find_map(file).ok_or_else(missing)
}

/// Runs a plugin with `command`, the call's arguments and this configuration; what it answered.
pub(crate) fn call(plugin: &Path, command: &str, args: &Args, config: &[u8]) -> Result<Vec<u8>, CniError> {
    let failed = |what: &str| {
        let named = format!("{} {command}: {what}", plugin.display());
        CniError::new(code::IO, named)
    };
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &args.container_id)
        .env("CNI_NETNS", args.netns.as_deref().unwrap_or(Path::new("")))
        .env("CNI_IFNAME", &args.ifname)
        .env("CNI_ARGS", &args.text)
        .env("CNI_PATH", std::env::join_paths(&args.path).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("cannot start: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin may answer without reading; its answer is what counts.
        input.write_all(config).ok();
    }
    let mut answer = Vec::new();
    let read = child.stdout.take().map(|output| output.take(LONGEST + 1).read_to_end(&mut answer));
    if answer.len() as u64 > LONGEST {
        child.kill().ok();
    }
    let status = child.wait().map_err(|error| failed(&format!("cannot wait: {error}")))?;
    read.transpose().map_err(|error| failed(&format!("cannot read its answer: {error}")))?;
    if answer.len() as u64 > LONGEST {
        return Err(failed("it answered with more than 4 MiB"));
    }
    if status.success() {
        return Ok(answer);
    }
    #[derive(Deserialize)]
    struct Refusal {
        code: u32,
        msg: Option<String>,
    }
    match serde_json::from_slice::<Refusal>(&answer) {
        Ok(said) => Err(CniError::new(said.code, said.msg.unwrap_or_default())),
        Err(_) => Err(failed(&format!("ended with {status} and no error object"))),
    }
}

/// Decodes what a plugin answered.
pub(crate) fn decode(output: &[u8]) -> Result<Value, CniError> {
    let wrong =
        |error| CniError::new(code::DECODE, format!("cannot decode the IPAM plugin's answer: {error}"));
    serde_json::from_slice(output).map_err(wrong)
}
