//! One call of a plugin, from the environment to the exit code.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::chained::{bandwidth, firewall, portmap, sbr, tuning, vrf};
use crate::interface::{
    bridge, dummy, host_device, ipvlan, loopback, macvlan, ovs, ptp, routed, sriov, tap, vlan,
};
use crate::ipam;
use crate::protocol::any_case::AnyCase;
use crate::protocol::args::{Args, Command, Lookup};
use crate::protocol::config;
use crate::protocol::config::{NetConf, invalid};
use crate::protocol::error::{CniError, code};
use crate::protocol::readers::Readers;
use crate::protocol::result::CniResult;
use crate::protocol::version::Version;

/// What is asked of a plugin, decoded and checked as far as all plugins need it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) command: Command,
    pub(crate) args: Args,
    pub(crate) conf: NetConf,
    pub(crate) version: Version,
    /// The configuration as it came, for a plugin that is executed.
    pub(crate) raw: Vec<u8>,
    /// Learns which keys are read, where a configuration is only explained.
    pub(crate) readers: Option<Readers>,
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

    /// The plugin's own keys of the configuration.
    pub(crate) fn keys<T: DeserializeOwned>(&self) -> Result<T, CniError> {
        match (&self.readers, serde_json::from_slice(&self.raw)) {
            (Some(readers), Ok(whole)) => readers.read("", &whole),
            _ => config::keys(&self.raw),
        }
    }

    /// The IPAM plugin's own keys, which are those of `ipam`.
    pub(crate) fn ipam_keys<T: DeserializeOwned>(&self) -> Result<T, CniError> {
        let ipam = Value::Object(self.conf.ipam.clone().unwrap_or_default());
        if let Some(readers) = &self.readers {
            return readers.read("ipam", &ipam);
        }
        T::deserialize(AnyCase(&ipam)).map_err(|error| {
            // Looked at once more, it is known which key is of the wrong type.
            let named = Readers::default().read::<T>("ipam", &ipam).err().map(|named| named.message);
            let said = named.unwrap_or_else(|| error.to_string());
            CniError::new(code::DECODE, format!("cannot decode the configuration on standard input: {said}"))
        })
    }

    /// What the plugin before in the chain, or the ADD before this call, answered, where it must
    /// be there.
    pub(crate) fn required_prev_result(&self) -> Result<CniResult, CniError> {
        self.prev_result()?.ok_or_else(|| invalid("prevResult is missing: it is what the plugins before (ADD), or the ADD before (CHECK), answered"))
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
    let name = name.and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    let call = decode(command, args, raw, version)?;
    let plugin = plugin(name, call.conf.kind.as_deref())?;
    recorded(&call, plugin, &mut |result| write(output, &result.to_value(call.version).to_string()))
}

/// One call of one of our plugins, in this process: the same as starting it with `args` as its
/// environment and `config` on standard input. `answer` gets what an ADD would write; when it
/// fails, the ADD is undone.
pub fn perform(
    command: Command,
    args: Args,
    config: Vec<u8>,
    answer: &mut dyn FnMut(Value) -> Result<(), CniError>,
) -> Result<(), CniError> {
    let call = decode(command, args, config, &mut Version::V110)?;
    let plugin = plugin(None, call.conf.kind.as_deref())?;
    recorded(&call, plugin, &mut |result| answer(result.to_value(call.version)))
}

/// Runs a plugin; the record of the attachment is there before the ADD answers, and goes with it.
fn recorded(call: &Call, plugin: Plugin, answer: Answer<'_>) -> Result<(), CniError> {
    let Some(registration) = &call.conf.weft else { return plugin(call, answer) };
    match call.command {
        Command::Add => {
            let network = call.conf.network()?;
            let mut written = false;
            let done = plugin(call, &mut |result| {
                registration.add(network, &call.args, result)?;
                written = true;
                answer(result)
            });
            if done.is_err() && written {
                registration.remove(&call.args).ok();
            }
            done
        }
        Command::Del => {
            plugin(call, answer)?;
            registration.remove(&call.args)
        }
        _ => plugin(call, answer),
    }
}

/// `version` is set as soon as it is known, for the error object.
fn decode(command: Command, args: Args, raw: Vec<u8>, version: &mut Version) -> Result<Call, CniError> {
    let conf = config::parse(&raw, command)?;
    *version = config::version(&conf, command)?;
    conf.network()?;
    if command != Command::Del {
        conf.check_ipam_type()?;
    }
    Ok(Call { command, args, conf, version: *version, raw, readers: None })
}

/// Has a plugin look at a configuration without acting, with `readers` learning what it reads:
/// an interface plugin by the ADD of a namespace that must not exist, which it opens after it has
/// planned and before it acts; a chained plugin by STATUS, which plans and never acts.
pub(crate) fn rehearse(
    command: Command,
    args: Args,
    config: Vec<u8>,
    readers: Readers,
) -> (Readers, Result<(), CniError>) {
    let mut call = match decode(command, args, config, &mut Version::V110) {
        Ok(call) => call,
        Err(error) => return (readers, Err(error)),
    };
    call.readers = Some(readers);
    let done = plugin(None, call.conf.kind.as_deref()).and_then(|plugin| plugin(&call, &mut |_| Ok(())));
    (call.readers.unwrap_or_default(), done)
}

/// Every plugin by the name that a configuration's `type` and a link to the executable have.
const PLUGINS: &[(&str, Plugin)] = &[
    ("bandwidth", bandwidth::plugin),
    ("bridge", bridge::plugin),
    ("dhcp", ipam::dhcp::plugin),
    ("dummy", dummy::plugin),
    ("firewall", firewall::plugin),
    ("host-device", host_device::plugin),
    ("host-local", |call, answer| ipam::plugin(ipam::HOST_LOCAL, call, answer)),
    ("ipvlan", ipvlan::plugin),
    ("loopback", loopback::plugin),
    ("macvlan", macvlan::plugin),
    ("ovs", ovs::plugin),
    ("pools", |call, answer| ipam::plugin(ipam::POOLS, call, answer)),
    ("portmap", portmap::plugin),
    ("ptp", ptp::plugin),
    ("routed", routed::plugin),
    ("sbr", sbr::plugin),
    ("sriov", sriov::plugin),
    ("static", ipam::static_::plugin),
    ("tap", tap::plugin),
    ("tuning", tuning::plugin),
    ("vlan", vlan::plugin),
    ("vrf", vrf::plugin),
];

/// Whether `kind` is one of our own plugins, which [`perform`] runs.
pub fn is_own(kind: &str) -> bool {
    PLUGINS.iter().any(|(name, _)| *name == kind)
}

/// The names of all plugins.
pub fn names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|(name, _)| *name)
}

/// The name under which the configuration's `type` decides.
const OWN_NAME: &str = "weft-cni";

/// The name that the executable was started by decides. A link to it with a name that is no
/// plugin's is refused: if the configuration decided then, a plugin that delegates to that name
/// would start itself without end.
fn plugin(name: Option<&str>, kind: Option<&str>) -> Result<Plugin, CniError> {
    let by_name = |wanted: &str| PLUGINS.iter().find(|(name, _)| *name == wanted).map(|(_, plugin)| *plugin);
    let unknown = || {
        let wanted = name.filter(|name| *name != OWN_NAME).or(kind).unwrap_or_default();
        let known = names().collect::<Vec<_>>().join(", ");
        invalid(&format!("type: there is no plugin {wanted:?} here: use one of {known}"))
    };
    match name.filter(|name| *name != OWN_NAME) {
        Some(name) => by_name(name),
        None => kind.and_then(by_name),
    }
    .ok_or_else(unknown)
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
