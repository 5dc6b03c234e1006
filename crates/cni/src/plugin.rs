//! One call of a plugin, from the environment to the exit code.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use crate::args::{Args, Command, Lookup};
use crate::config::{NetConf, invalid};
use crate::error::{CniError, code};
use crate::result::CniResult;
use crate::version::Version;
use crate::{bridge, config, ipam_call, loopback};

/// What is asked of a plugin, decoded and checked as far as all plugins need it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) command: Command,
    pub(crate) args: Args,
    pub(crate) conf: NetConf,
    pub(crate) version: Version,
    /// The configuration as it came, for a plugin that is executed.
    pub(crate) raw: Vec<u8>,
}

/// Writes the result of an ADD. When that fails, nobody knows of the ADD, so it is undone.
pub(crate) type Answer<'a> = &'a mut dyn FnMut(&CniResult) -> Result<(), CniError>;

type Plugin = fn(&Call, Answer<'_>) -> Result<(), CniError>;

impl Call {
    /// What the plugin before in the chain, or the ADD before this call, answered.
    pub(crate) fn prev_result(&self) -> Result<Option<CniResult>, CniError> {
        let value = self.conf.prev_result.as_ref().filter(|value| !value.is_null());
        value.map(|value| CniResult::from_value(value, self.version)).transpose()
    }

    /// The same where it must be there.
    pub(crate) fn required_prev_result(&self) -> Result<CniResult, CniError> {
        self.prev_result()?.ok_or_else(|| invalid("prevResult is missing: CHECK needs what ADD answered"))
    }
}

/// Serves one call: `name` is the program's own, `lookup` reads the environment.
///
/// One JSON object goes to `output`: the result (ADD), the versions (VERSION) or an error; the
/// other commands write nothing when they succeed.
pub fn run(name: Option<&OsStr>, lookup: Lookup<'_>, input: impl Read, mut output: impl Write) -> ExitCode {
    let mut version = Version::V110;
    let error = match serve(name, lookup, input, &mut output, &mut version) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    if writeln!(output, "{}", error.to_json(version)).and_then(|()| output.flush()).is_err() {
        eprintln!("{error}");
    }
    ExitCode::FAILURE
}

fn serve(
    name: Option<&OsStr>,
    lookup: Lookup<'_>,
    input: impl Read,
    output: &mut dyn Write,
    version: &mut Version,
) -> Result<(), CniError> {
    let command = Command::from_env(lookup)?;
    if command == Command::Version {
        return write(output, &versions(&config::read(input)?));
    }
    let args = Args::from_env(command, lookup)?;
    let raw = config::read(input)?;
    let conf = config::parse(&raw, command)?;
    *version = config::version(&conf, command)?;
    conf.network()?;
    let plugin = plugin(name, conf.kind.as_deref())?;
    let call = Call { command, args, conf, version: *version, raw };
    let wanted = *version;
    plugin(&call, &mut |result| write(output, &result.to_value(wanted).to_string()))
}

fn plugin(name: Option<&OsStr>, kind: Option<&str>) -> Result<Plugin, CniError> {
    let name = name.and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    let by_name = |name: &str| -> Option<Plugin> {
        match name {
            "bridge" => Some(bridge::plugin),
            "host-local" => Some(ipam_call::plugin),
            "loopback" => Some(loopback::plugin),
            _ => None,
        }
    };
    let unknown = || {
        let kind = kind.unwrap_or_default();
        invalid(&format!("type: there is no plugin {kind:?} here: use bridge, host-local or loopback"))
    };
    name.and_then(by_name).or_else(|| kind.and_then(by_name)).ok_or_else(unknown)
}

/// The caller's version comes back if it is one; a caller that says nothing gets the newest.
fn versions(raw: &[u8]) -> String {
    let conf = config::parse(raw, Command::Version).ok();
    let asked = conf.and_then(|conf| Version::parse(conf.cni_version.as_deref()?));
    let body = json!({
        "cniVersion": asked.unwrap_or(Version::V110).text(),
        "supportedVersions": Version::ALL.map(Version::text),
    });
    body.to_string()
}

/// One write, so that a reader sees all of it or nothing.
fn write(output: &mut dyn Write, text: &str) -> Result<(), CniError> {
    output
        .write_all(format!("{text}\n").as_bytes())
        .and_then(|()| output.flush())
        .map_err(|error| CniError::new(code::IO, format!("cannot write the answer: {error}")))
}
