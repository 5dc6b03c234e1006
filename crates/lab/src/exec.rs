//! `lab exec`: a command inside a pod or on a node.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use anyhow::Context;
use nix::sched::{CloneFlags, unshare};
use weft_kernel::sandbox;

use crate::attended;
use crate::enter::{Entered, code, enter};
use crate::error::Error;
use crate::places::{Place, PlaceKind};
use crate::state::LabState;

/// What a command runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `node/NAME`.
    Node(String),
    /// `[NAMESPACE/]NAME`.
    Pod {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
    /// `underlay`: the router, and the world outside the cluster.
    Underlay,
}

/// Not the name of anything a command can run in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no place: write POD, NAMESPACE/POD, node/NODE or underlay")]
pub struct BadTarget(String);

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        match text.split('/').collect::<Vec<_>>()[..] {
            ["underlay"] => Ok(Target::Underlay),
            ["node", name] if !name.is_empty() => Ok(Target::Node(name.into())),
            ["pod", name] | [name] if !name.is_empty() => Ok(Target::pod("default", name)),
            [namespace, name] if !namespace.is_empty() && !name.is_empty() => {
                Ok(Target::pod(namespace, name))
            }
            _ => Err(BadTarget(text.into())),
        }
    }
}

impl Target {
    fn pod(namespace: &str, name: &str) -> Target {
        Target::Pod { namespace: namespace.into(), name: name.into() }
    }

    /// The place of this target among those of the lab.
    pub fn find<'a>(&self, places: &'a [Place]) -> Option<&'a Place> {
        let name = self.to_string();
        places.iter().find(|place| place.name == name)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Node(name) => write!(f, "node/{name}"),
            Target::Pod { namespace, name } => write!(f, "{namespace}/{name}"),
            Target::Underlay => f.write_str("underlay"),
        }
    }
}

/// Runs `argv` in `target`, with a `/sys` and a host name of its own; its exit code. It ends when this
/// process's caller does. To be called while the process has one thread and no runtime.
pub fn exec(state: &LabState, target: &Target, argv: &[String]) -> anyhow::Result<u8> {
    let places = match enter(state)? {
        Entered::Outside(code) => return Ok(code),
        Entered::Inside(places) => places,
    };
    let place = target.find(&places).ok_or_else(|| unknown(state, target, &places))?;
    let (program, arguments) = argv.split_first().context("no command was given: put it after --")?;
    place.open()?.enter()?;
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace for the command")?;
    // The machine's /sys shows the machine's interfaces; where the kernel does not allow a new
    // one (a container that hides part of it), the command still runs.
    if let Err(error) = sandbox::mount_sysfs() {
        tracing::warn!("/sys shows another network namespace: {error}");
    }
    sandbox::set_hostname(place.name.rsplit('/').next().unwrap_or(&place.name))?;
    match attended::run(Command::new(program).args(arguments)) {
        Ok(status) => Ok(code(status)),
        Err(error) => {
            eprintln!("weft: cannot run {program}: {error}");
            Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

fn unknown(state: &LabState, target: &Target, places: &[Place]) -> Error {
    let node = matches!(target, Target::Node(_));
    let alike = |place: &&Place| node == (place.kind == PlaceKind::Node) && place.kind != PlaceKind::Underlay;
    let mut known: Vec<&str> = places.iter().filter(alike).map(|place| place.name.as_str()).collect();
    let more = known.len().saturating_sub(8);
    known.truncate(8);
    let known = match (known.is_empty(), more) {
        (true, _) => "none that is ready".into(),
        (false, 0) => known.join(", "),
        (false, more) => format!("{} and {more} more", known.join(", ")),
    };
    Error::NoSuchPlace { lab: state.name().into(), what: target.to_string(), known }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_and_print_alike() {
        for (text, prints) in [
            ("web-0", "default/web-0"),
            ("pod/web-0", "default/web-0"),
            ("shop/web-0", "shop/web-0"),
            ("node/node1", "node/node1"),
            ("underlay", "underlay"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), prints);
        }
        for bad in ["", "/", "a/", "/b", "a/b/c", "node/"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }
}
