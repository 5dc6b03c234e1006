//! The call as the environment states it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use weft_ipam::host_local::Attachment;

use crate::protocol::error::{CniError, code};

/// Longest container ID: it is part of file contents and names of other programs.
const LONGEST_ID: usize = 253;
/// Longest interface name (IFNAMSIZ without the final zero).
const LONGEST_IFNAME: usize = 15;

/// What the runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Compare it with what ADD made.
    Check,
    /// Say which versions are supported.
    Version,
    /// Say whether an ADD could be served.
    Status,
    /// Remove what belongs to no valid attachment.
    Gc,
}

/// The environment of a call, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Args {
    /// CNI_CONTAINERID; empty where the command needs none.
    pub container_id: String,
    /// CNI_IFNAME; empty where the command needs none.
    pub ifname: String,
    /// CNI_NETNS; none for a DEL after the sandbox is gone.
    pub netns: Option<PathBuf>,
    /// CNI_PATH: where other plugins are.
    pub path: Vec<PathBuf>,
    /// CNI_ARGS as it came, for a plugin that is executed.
    pub text: String,
    /// CNI_ARGS, as far as it means something to us.
    pub extra: ExtraArgs,
}

/// The keys of CNI_ARGS that are understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraArgs {
    /// All of it, as it came.
    pub text: String,
    /// K8S_POD_NAMESPACE and K8S_POD_NAME, joined by a slash.
    pub pod: Option<String>,
    /// MAC of the container's interface.
    pub mac: Option<String>,
    /// K8S_POD_UID: the pod's own.
    pub pod_uid: Option<String>,
    /// Requested addresses.
    pub ips: Vec<IpAddr>,
    /// The same as they stand there, with the prefix lengths that `static` wants.
    pub ip: Option<String>,
    /// GATEWAY: the next hops that `static` gives to requested addresses of their networks.
    pub gateway: Option<String>,
    /// OvnPort: the logical port that OVN knows the interface by.
    pub ovn_port: Option<String>,
}

/// Reads one environment variable.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

impl Command {
    /// CNI_COMMAND.
    pub fn from_env(lookup: Lookup<'_>) -> Result<Command, CniError> {
        match required(lookup, "CNI_COMMAND")?.as_str() {
            "ADD" => Ok(Command::Add),
            "DEL" => Ok(Command::Del),
            "CHECK" => Ok(Command::Check),
            "VERSION" => Ok(Command::Version),
            "STATUS" => Ok(Command::Status),
            "GC" => Ok(Command::Gc),
            other => {
                let known = "use ADD, DEL, CHECK, GC, STATUS or VERSION";
                Err(wrong("CNI_COMMAND", &format!("{other:?} is no command: {known}")))
            }
        }
    }
}

impl Args {
    /// The variables that `command` needs.
    pub fn from_env(command: Command, lookup: Lookup<'_>) -> Result<Args, CniError> {
        let attaches = matches!(command, Command::Add | Command::Check);
        let per_container = attaches || command == Command::Del;
        let netns = text(lookup, "CNI_NETNS")?.filter(|path| !path.is_empty()).map(PathBuf::from);
        if attaches && netns.is_none() {
            return Err(wrong(
                "CNI_NETNS",
                "it is not set: give the path of the container's network namespace",
            ));
        }
        let path = lookup("CNI_PATH").unwrap_or_default();
        let args = text(lookup, "CNI_ARGS")?.unwrap_or_default();
        Ok(Args {
            container_id: if per_container { container_id(lookup)? } else { String::new() },
            ifname: if per_container { ifname(lookup)? } else { String::new() },
            netns,
            path: std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect(),
            // DEL needs none of it, so nothing there may stop it.
            extra: if attaches { ExtraArgs::parse(&args)? } else { ExtraArgs::default() },
            text: args,
        })
    }

    /// The attachment that the call is about.
    pub fn attachment(&self) -> Attachment<'_> {
        Attachment { container_id: &self.container_id, ifname: &self.ifname }
    }
}

impl ExtraArgs {
    /// Parses CNI_ARGS: `KEY=VALUE;KEY=VALUE`.
    pub fn parse(args: &str) -> Result<ExtraArgs, CniError> {
        let pairs: Vec<(&str, &str)> = args
            .split(';')
            .filter(|pair| !pair.is_empty())
            .map(|pair| pair.split_once('=').ok_or_else(|| not_a_pair(pair)))
            .collect::<Result<_, _>>()?;
        let ignore = pairs.iter().any(|(key, value)| {
            *key == "IgnoreUnknown" && matches!(value.to_ascii_lowercase().as_str(), "1" | "t" | "true")
        });
        let mut extra = ExtraArgs { text: args.to_owned(), ..ExtraArgs::default() };
        let (mut namespace, mut name) = (None, None);
        for (key, value) in pairs {
            match key {
                "K8S_POD_NAMESPACE" => namespace = kubernetes_name(key, value)?,
                "K8S_POD_NAME" => name = kubernetes_name(key, value)?,
                "MAC" => extra.mac = Some(value.to_owned()),
                "IP" => (extra.ips, extra.ip) = (addresses(value)?, Some(value.to_owned())),
                "GATEWAY" => extra.gateway = Some(value.to_owned()),
                "K8S_POD_UID" => extra.pod_uid = Some(value.to_owned()),
                "OvnPort" => extra.ovn_port = Some(value.to_owned()),
                "IgnoreUnknown" | "K8S_POD_INFRA_CONTAINER_ID" => {}
                _ if ignore => {}
                _ => {
                    let reason = format!("the key {key:?} is unknown: remove it or add IgnoreUnknown=1");
                    return Err(wrong("CNI_ARGS", &reason));
                }
            }
        }
        extra.pod = namespace.zip(name).map(|(namespace, name)| format!("{namespace}/{name}"));
        Ok(extra)
    }
}

fn not_a_pair(pair: &str) -> CniError {
    wrong("CNI_ARGS", &format!("{pair:?} is not KEY=VALUE: separate pairs by semicolons"))
}

fn addresses(value: &str) -> Result<Vec<IpAddr>, CniError> {
    let one = |text: &str| {
        let ip = text.split_once('/').map_or(text, |(ip, _)| ip);
        ip.parse().map_err(|_| wrong("CNI_ARGS", &format!("IP: {text:?} is no IP address")))
    };
    value.split(',').map(str::trim).filter(|ip| !ip.is_empty()).map(one).collect()
}

/// None for a name that other runtimes give (`happy_curie`) and Kubernetes would not.
fn kubernetes_name<'a>(key: &str, value: &'a str) -> Result<Option<&'a str>, CniError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if value.is_empty() || value.len() > 253 || !value.bytes().all(plain) || value.contains("..") {
        return Err(wrong("CNI_ARGS", &format!("{key}: {value:?} is no Kubernetes name")));
    }
    let allowed = |b: u8| !b.is_ascii_uppercase() && b != b'_';
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    let kubernetes = bytes.iter().all(|b| allowed(*b)) && ends(bytes.first()) && ends(bytes.last());
    Ok(kubernetes.then_some(value))
}

fn container_id(lookup: Lookup<'_>) -> Result<String, CniError> {
    let id = required(lookup, "CNI_CONTAINERID")?;
    let first = id.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !first || !rest {
        let reason = "it starts with a letter or digit and has letters, digits, '_', '.' and '-' only";
        return Err(wrong("CNI_CONTAINERID", reason));
    }
    if id.len() > LONGEST_ID {
        return Err(wrong("CNI_CONTAINERID", &format!("it is longer than {LONGEST_ID} characters")));
    }
    Ok(id)
}

fn ifname(lookup: Lookup<'_>) -> Result<String, CniError> {
    let name = required(lookup, "CNI_IFNAME")?;
    let reason = if name.len() > LONGEST_IFNAME {
        "it is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "it is no interface name"
    } else if name.chars().any(|c| matches!(c, '/' | ':' | '%') || c.is_whitespace() || c.is_control()) {
        "it has '/', ':', '%', a space or a control character"
    } else {
        return Ok(name);
    };
    Err(wrong("CNI_IFNAME", &format!("{name:?}: {reason}")))
}

fn required(lookup: Lookup<'_>, key: &str) -> Result<String, CniError> {
    let value = text(lookup, key)?.filter(|value| !value.is_empty());
    value.ok_or_else(|| wrong(key, "it is not set or empty"))
}

fn text(lookup: Lookup<'_>, key: &str) -> Result<Option<String>, CniError> {
    lookup(key).map(|value| value.into_string().map_err(|_| wrong(key, "it is not UTF-8"))).transpose()
}

fn wrong(key: &str, reason: &str) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, format!("environment variable {key}: {reason}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_runtimes_arguments_name_the_pod() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;X=y";
        assert_eq!(ExtraArgs::parse(text).unwrap().pod.unwrap(), "shop/web-0");
        assert!(ExtraArgs::parse("K8S_POD_NAME=web-0").unwrap().pod.is_none());
        let podman = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=happy_Curie";
        assert!(ExtraArgs::parse(podman).unwrap().pod.is_none());
        for bad in ["garbage", "X=y", "K8S_POD_NAME=../x", "K8S_POD_NAME=", "IP=ten"] {
            assert_eq!(ExtraArgs::parse(bad).unwrap_err().code, code::INVALID_ENVIRONMENT, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_environment_makes_it_panic(id in ".{0,30}", ifname in ".{0,20}", args in ".{0,60}") {
            let lookup = |key: &str| Some(OsString::from(match key {
                "CNI_CONTAINERID" => &id,
                "CNI_IFNAME" => &ifname,
                _ => &args,
            }));
            let _ = Args::from_env(Command::Add, &lookup);
            let _ = Command::from_env(&lookup);
            let _ = ExtraArgs::parse(&args);
        }
    }
}
