//! What an interface's attributes were before they were changed, in a file of the reference's
//! form: `<dataDir>/<container ID>_<interface>.json`.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::ser::{PrettyFormatter, Serializer};
use weft_kernel::{Link, LinkSet, Netlink, Op};

use crate::chained::tuning::keys::Wanted;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;

/// The attributes that were changed, as they were.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Backup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(rename = "txQLen", default, skip_serializing_if = "Option::is_none")]
    tx_queue_len: Option<u32>,
}

/// The file of a call's attachment.
pub(super) fn path(data_dir: &Path, call: &Call) -> PathBuf {
    // Neither part can have a slash: both are checked.
    data_dir.join(format!("{}_{}.json", call.args.container_id, call.args.ifname))
}

/// A file that stays is no harm: the next ADD writes it anew.
pub(super) fn remove(file: &Path) {
    fs::remove_file(file).ok();
}

impl Backup {
    /// Of what `wanted` changes.
    pub(super) fn of(link: &Link, wanted: &Wanted) -> Backup {
        Backup {
            mac: wanted.mac.as_ref().and(link.mac).map(|mac| mac.to_string()),
            promisc: wanted.promiscuous.then_some(link.promiscuous),
            mtu: wanted.mtu.map(|_| link.mtu),
            allmulti: wanted.allmulti.map(|_| link.allmulti),
            tx_queue_len: wanted.tx_queue_len.map(|_| link.tx_queue_len),
        }
    }

    /// Writes the file, whole or not at all.
    pub(super) fn write(&self, file: &Path) -> Result<(), CniError> {
        let failed =
            |error| CniError::new(code::IO, format!("dataDir: cannot write {}: {error}", file.display()));
        let mut bytes = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b" "));
        self.serialize(&mut serializer).map_err(|error| failed(error.into()))?;
        if let Some(directory) = file.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let unfinished = file.with_extension("json.new");
        let written =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let written =
            written.and_then(|mut open| open.write_all(&bytes)).and_then(|()| fs::rename(&unfinished, file));
        written.inspect_err(|_| remove(&unfinished)).map_err(failed)
    }

    /// What the file says; none where there is none, or none that can be read.
    pub(super) fn read(file: &Path) -> Option<Backup> {
        let bytes = fs::read(file).ok()?;
        Some(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Puts everything back, each by a request of its own: one that the kernel refuses does not
    /// keep the others from being done.
    pub(super) fn restore(&self, pod: &mut Netlink, index: u32) {
        let sets = [
            LinkSet { mtu: self.mtu, ..LinkSet::default() },
            LinkSet { mac: self.mac.as_ref().and_then(|mac| mac.parse().ok()), ..LinkSet::default() },
            LinkSet { promiscuous: self.promisc, ..LinkSet::default() },
            LinkSet { allmulti: self.allmulti, ..LinkSet::default() },
            LinkSet { tx_queue_len: self.tx_queue_len, ..LinkSet::default() },
        ];
        pod.batch(&sets.map(|set| Op::LinkSet(LinkSet { index, ..set })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_references() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("deep/c1_eth0.json");
        let backup = Backup {
            mac: Some("0a:00:00:00:00:01".into()),
            promisc: Some(false),
            mtu: Some(1500),
            allmulti: None,
            tx_queue_len: Some(1000),
        };
        backup.write(&file).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let expected = "{\n \"mac\": \"0a:00:00:00:00:01\",\n \"promisc\": false,\n \"mtu\": 1500,\n \"txQLen\": 1000\n}";
        assert_eq!(text, expected);
        assert_eq!(Backup::read(&file).unwrap(), backup);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
        fs::write(&file, "rubbish").unwrap();
        assert_eq!(Backup::read(&file).unwrap(), Backup::default());
        assert!(Backup::read(&directory.path().join("none")).is_none());
    }
}
