//! Other programs' IPAM plugins.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::protocol::args::Args;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};

/// The program of an IPAM type in CNI_PATH.
pub(crate) fn find(kind: &str, args: &Args) -> Result<PathBuf, CniError> {
    let plain = !kind.is_empty() && !kind.starts_with('.') && !kind.contains(['/', '\0']);
    if !plain {
        return Err(invalid(&format!("ipam.type: {kind:?} is no plugin's name")));
    }
    let file =
        |dir: &PathBuf| Some(dir.join(kind)).filter(|path| fs::metadata(path).is_ok_and(|m| m.is_file()));
    let missing = || {
        let dirs: Vec<String> = args.path.iter().map(|dir| dir.display().to_string()).collect();
        invalid(&format!("ipam.type: there is no plugin {kind:?} in CNI_PATH ({})", dirs.join(", ")))
    };
    args.path.iter().find_map(file).ok_or_else(missing)
}

/// Runs a plugin with our own environment, `command` and this configuration.
pub(crate) fn call(plugin: &PathBuf, command: &str, config: &[u8]) -> Result<Vec<u8>, CniError> {
    let failed = |what: &str| {
        let named = format!("{} {command}: {what}", plugin.display());
        CniError::new(code::IO, named)
    };
    let mut child = Command::new(plugin)
        .env("CNI_COMMAND", command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format!("cannot start: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A plugin may answer without reading; its answer is what counts.
        input.write_all(config).ok();
    }
    let output = child.wait_with_output().map_err(|error| failed(&format!("cannot wait: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    #[derive(Deserialize)]
    struct Answer {
        code: u32,
        msg: Option<String>,
    }
    match serde_json::from_slice::<Answer>(&output.stdout) {
        Ok(answer) => Err(CniError::new(answer.code, answer.msg.unwrap_or_default())),
        Err(_) => Err(failed(&format!("ended with {} and no error object", output.status))),
    }
}

/// Decodes what a plugin answered.
pub(crate) fn decode(output: &[u8]) -> Result<Value, CniError> {
    let wrong =
        |error| CniError::new(code::DECODE, format!("cannot decode the IPAM plugin's answer: {error}"));
    serde_json::from_slice(output).map_err(wrong)
}
