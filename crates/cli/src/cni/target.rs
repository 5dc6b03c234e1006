//! What an attachment is, from the command line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha512};
use weft_cni::runtime::Target;

use crate::cni_args::AttachmentArgs;
use crate::exit::Usage;

/// Where `ip netns` keeps the namespaces that have a name.
const NAMED: &str = "/run/netns";

pub(super) fn of(options: &AttachmentArgs) -> anyhow::Result<Target> {
    let netns = netns(&options.netns)?;
    let container_id = options.container_id.clone().unwrap_or_else(|| container_id(&netns));
    Ok(Target {
        container_id,
        netns: Some(netns),
        ifname: options.ifname.clone(),
        args: args(options.args.as_deref().unwrap_or_default())?,
        capabilities: capabilities(options.capability_args.as_deref().unwrap_or_default())?,
    })
}

/// A bare name that is no file here is one of `ip netns`.
fn netns(given: &Path) -> anyhow::Result<PathBuf> {
    let bare = given.components().count() == 1 && !given.is_absolute() && !given.exists();
    if bare {
        return Ok(Path::new(NAMED).join(given));
    }
    std::path::absolute(given).with_context(|| format!("{} is no path", given.display()))
}

/// As cnitool makes it, so that either can delete what the other added.
fn container_id(netns: &Path) -> String {
    let hash = Sha512::digest(netns.as_os_str().as_encoded_bytes());
    hash.iter().take(10).fold("cnitool-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
}

fn args(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    let pair = |pair: &str| {
        let (key, value) =
            pair.split_once('=').filter(|(key, value)| !key.is_empty() && !value.is_empty())?;
        Some((key.to_owned(), value.to_owned()))
    };
    let wrong =
        |text: &str| Usage(format!("CNI_ARGS: {text:?} is not KEY=VALUE: separate pairs by semicolons"));
    let pairs = text.split(';').filter(|pair| !pair.is_empty());
    Ok(pairs.map(|text| pair(text).ok_or_else(|| wrong(text))).collect::<Result<_, _>>()?)
}

fn capabilities(text: &str) -> anyhow::Result<Map<String, Value>> {
    if text.is_empty() {
        return Ok(Map::new());
    }
    let wrong = |error| Usage(format!("CAP_ARGS is no JSON object: {error}"));
    Ok(serde_json::from_str(text).map_err(wrong)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_cnitools() {
        assert_eq!(container_id(Path::new("/var/run/netns/test")), "cnitool-7b8a61d5d8e94d07cbe4");
    }

    #[test]
    fn names_and_paths_are_understood() {
        assert_eq!(netns(Path::new("no-such-file")).unwrap(), Path::new("/run/netns/no-such-file"));
        assert_eq!(netns(Path::new("/proc/1/ns/net")).unwrap(), Path::new("/proc/1/ns/net"));
        assert!(netns(Path::new("a/b")).unwrap().is_absolute());
        let pairs = args("A=b;C=d=e;").unwrap();
        assert_eq!(pairs, [("A".into(), "b".into()), ("C".into(), "d=e".into())]);
        assert!(args("A").is_err() && args("A=").is_err() && capabilities("[]").is_err());
    }
}
