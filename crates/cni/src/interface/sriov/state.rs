//! What is kept on disk while a container has a virtual function, in the form of the sriov-cni
//! project, so that either gives back what the other took:
//!
//! - `<cniDir>/<container ID>-<interface>`: the configuration and how everything was before. It is
//!   there before anything is changed, so that a DEL can undo an ADD that was killed.
//! - `<cniDir>/pci/<address>`: the namespace that has the function; whoever changes the function
//!   holds its lock (flock).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_kernel::{Netns, Vf, VfLinkState, VfSet, VfVlan};

use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};
use crate::protocol::plugin::Call;

/// Where sriov-cni keeps it.
const DEFAULT_FOLDER: &str = "/var/lib/cni/sriov";
/// No file of ours is longer.
const LONGEST: u64 = 64 * 1024;
/// How long another call may hold a function.
const PATIENCE: Duration = Duration::from_secs(60);
/// O_NOFOLLOW | O_NONBLOCK of Linux: no link is followed, no FIFO waited for.
const CAREFUL: i32 = 0o400_000 | 0o4000;

/// How a virtual function is used, and how it was before. Names as in sriov-cni's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    pub(crate) name: String,
    pub(crate) ipam: Value,
    #[serde(rename = "deviceID")]
    pub(crate) device_id: String,
    #[serde(rename = "Master")]
    pub(crate) master: String,
    #[serde(rename = "VFID")]
    pub(crate) number: u32,
    #[serde(rename = "ContIFNames")]
    pub(crate) ifname: String,
    /// The path of the container's namespace, by which its entry under `pci` is known. Ours only.
    pub(crate) netns: String,
    #[serde(rename = "MAC")]
    pub(crate) mac: String,
    pub(crate) vlan: Option<u32>,
    #[serde(rename = "vlanQoS")]
    pub(crate) vlan_qos: Option<u32>,
    pub(crate) min_tx_rate: Option<u32>,
    pub(crate) max_tx_rate: Option<u32>,
    pub(crate) spoofchk: String,
    pub(crate) trust: String,
    pub(crate) link_state: String,
    #[serde(rename = "OrigVfState")]
    pub(crate) before: Before,
}

/// How the function was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Before {
    /// Its name on the node; empty where a program has it.
    #[serde(rename = "HostIFName")]
    pub(crate) ifname: String,
    #[serde(rename = "SpoofChk")]
    spoof_check: bool,
    #[serde(rename = "Trust")]
    pub(crate) trust: bool,
    #[serde(rename = "AdminMAC")]
    pub(crate) admin_mac: String,
    #[serde(rename = "EffectiveMAC")]
    pub(crate) effective_mac: String,
    #[serde(rename = "Vlan")]
    vlan: u32,
    #[serde(rename = "VlanQoS")]
    vlan_qos: u32,
    #[serde(rename = "VlanProto")]
    vlan_proto: u32,
    #[serde(rename = "MinTxRate")]
    min_tx_rate: u32,
    #[serde(rename = "MaxTxRate")]
    max_tx_rate: u32,
    #[serde(rename = "LinkState")]
    link_state: u32,
    #[serde(rename = "MTU")]
    pub(crate) mtu: u32,
}

const ETH_P_8021Q: u32 = 0x8100;
const ETH_P_8021AD: u32 = 0x88a8;

impl Saved {
    /// What is going to be changed, and how it is now.
    pub(crate) fn note(&mut self, set: &VfSet, now: &Vf) {
        let switch = |value: Option<bool>| value.map_or("", |on| if on { "on" } else { "off" }).to_owned();
        self.mac = set.mac.map(|mac| mac.to_string()).unwrap_or_default();
        self.vlan = set.vlan.map(|vlan| vlan.id);
        self.vlan_qos = set.vlan.map(|vlan| vlan.qos);
        self.min_tx_rate = set.rates.map(|rates| rates.0);
        self.max_tx_rate = set.rates.map(|rates| rates.1);
        self.spoofchk = switch(set.spoof_check);
        self.trust = switch(set.trust);
        self.link_state = match set.link_state {
            Some(VfLinkState::Auto) => "auto",
            Some(VfLinkState::Enable) => "enable",
            Some(VfLinkState::Disable) => "disable",
            None => "",
        }
        .to_owned();
        let before = &mut self.before;
        before.spoof_check = now.spoof_check.unwrap_or_default();
        before.trust = now.trust.unwrap_or_default();
        before.admin_mac = now.mac.to_string();
        (before.vlan, before.vlan_qos) = (now.vlan.id, now.vlan.qos);
        before.vlan_proto = if now.vlan.outer { ETH_P_8021AD } else { ETH_P_8021Q };
        (before.min_tx_rate, before.max_tx_rate) = (now.min_tx_rate, now.max_tx_rate);
        before.link_state = now.link_state.map_or(0, |state| state as u32);
    }

    /// The changes that bring back what was before, each alone, so that one that is refused does
    /// not stop the others. Trust is last: with it the address can be changed.
    pub(crate) fn restoring(&self) -> Vec<VfSet> {
        let (before, none) = (&self.before, VfSet::default());
        let vlan = VfVlan {
            id: before.vlan,
            qos: before.vlan_qos,
            outer: before.vlan_proto == ETH_P_8021AD && before.vlan != 0,
        };
        let state = match before.link_state {
            1 => VfLinkState::Enable,
            2 => VfLinkState::Disable,
            _ => VfLinkState::Auto,
        };
        let rates = self.min_tx_rate.is_some() || self.max_tx_rate.is_some();
        let sets = [
            self.vlan.map(|_| VfSet { vlan: Some(vlan), ..none }),
            (!self.spoofchk.is_empty()).then_some(VfSet { spoof_check: Some(before.spoof_check), ..none }),
            (!self.mac.is_empty()).then(|| VfSet { mac: before.admin_mac.parse().ok(), ..none }),
            rates.then_some(VfSet { rates: Some((before.min_tx_rate, before.max_tx_rate)), ..none }),
            (!self.link_state.is_empty()).then_some(VfSet { link_state: Some(state), ..none }),
            (!self.trust.is_empty()).then_some(VfSet { trust: Some(before.trust), ..none }),
        ];
        sets.into_iter().flatten().map(|set| VfSet { number: self.number, ..set }).collect()
    }
}

/// The folder of the state.
#[derive(Clone, Debug)]
pub(crate) struct Folder(PathBuf);

/// A function that no other call changes as long as this lives.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    path: PathBuf,
}

impl Folder {
    /// `cniDir`, or sriov-cni's.
    pub(crate) fn of(key: Option<&str>) -> Result<Folder, CniError> {
        let path = Path::new(key.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_FOLDER));
        if !path.is_absolute() {
            return Err(invalid(&format!("cniDir: {} is no absolute path", path.display())));
        }
        Ok(Folder(path.to_owned()))
    }

    /// Takes the lock of a function. `device` is a checked PCI address.
    pub(crate) fn hold(&self, device: &str) -> Result<Held, CniError> {
        let folder = self.0.join("pci");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(fault("create", &folder))?;
        let path = folder.join(device);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(CAREFUL)
                .open(&path)
                .map_err(fault("open", &path))?;
            match file.try_lock() {
                // Another call may have removed the file before this one had its lock.
                Ok(()) if is_at(&file, &path) => return Ok(Held { file, path }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => {
                    let message = format!("deviceID: another call has been busy with {device} for a minute");
                    return Err(CniError::new(code::TRY_AGAIN, message));
                }
                Err(TryLockError::Error(error)) => return Err(fault("lock", &path)(error)),
            }
        }
    }

    fn file(&self, call: &Call) -> PathBuf {
        self.0.join(format!("{}-{}", call.args.container_id, call.args.ifname))
    }

    /// Writes the state, whole or not at all.
    pub(crate) fn save(&self, call: &Call, saved: &Saved) -> Result<(), CniError> {
        let path = self.file(call);
        let aside = self.0.join(format!(".{}.{}", call.args.attachment().key(), std::process::id()));
        let text = serde_json::to_vec(saved).unwrap_or_default();
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)
            .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&aside, &path));
        if written.is_err() {
            fs::remove_file(&aside).ok();
        }
        written.map_err(fault("write", &path))
    }

    /// The state of the call's attachment; none where there is none that can be read.
    pub(crate) fn load(&self, call: &Call) -> Option<Saved> {
        read(&self.file(call))
    }

    /// The state is not needed any more.
    pub(crate) fn forget(&self, call: &Call) -> Result<(), CniError> {
        remove(&self.file(call))
    }

    /// The state of all attachments of a network: their files' names with it.
    pub(crate) fn of_network(&self, network: &str) -> Vec<(PathBuf, Saved)> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten().map(|entry| entry.path());
        let ours = |(_, saved): &(PathBuf, Saved)| saved.name == network && !saved.device_id.is_empty();
        entries.filter_map(|path| read(&path).map(|saved| (path, saved))).filter(ours).collect()
    }
}

impl Held {
    /// The namespace that has the function and its path, as far as it still is.
    pub(crate) fn owner(&mut self) -> Option<(String, Netns)> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        Read::by_ref(&mut self.file).take(LONGEST).read_to_string(&mut text).ok()?;
        let path = Path::new(text.trim()).is_absolute().then(|| text.trim().to_owned())?;
        let netns = Netns::open(Path::new(&path)).ok()?;
        Some((path, netns))
    }

    /// From now on the namespace at `path` has it.
    pub(crate) fn give_to(&mut self, path: &Path) -> Result<(), CniError> {
        let done = self
            .file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .and_then(|()| self.file.write_all(path.to_string_lossy().as_bytes()));
        done.map_err(fault("write", &self.path))
    }

    /// Nobody has it any more.
    pub(crate) fn free(self) -> Result<(), CniError> {
        remove(&self.path)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(id), fs::symlink_metadata(path).map(id)), (Ok(a), Ok(b)) if a == b)
}

fn read(path: &Path) -> Option<Saved> {
    let file = OpenOptions::new().read(true).custom_flags(CAREFUL).open(path).ok()?;
    file.metadata().ok().filter(fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    file.take(LONGEST).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Removes a file; one that is gone is no error.
pub(crate) fn remove(path: &Path) -> Result<(), CniError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault("remove", path)(error)),
        _ => Ok(()),
    }
}

fn fault(op: &str, path: &Path) -> impl Fn(io::Error) -> CniError {
    move |error| CniError::new(code::IO, format!("cannot {op} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_comes_back_and_nothing_else() {
        let now = Vf {
            number: 3,
            mac: weft_model::Mac([2, 0, 0, 0, 0, 9]),
            vlan: VfVlan { id: 5, qos: 1, outer: true },
            spoof_check: Some(true),
            trust: Some(false),
            link_state: Some(VfLinkState::Auto),
            min_tx_rate: 0,
            max_tx_rate: 100,
        };
        let set = VfSet { vlan: Some(VfVlan::default()), trust: Some(true), ..VfSet::default() };
        let mut saved = Saved { number: 3, ..Saved::default() };
        saved.note(&set, &now);
        let text = serde_json::to_string(&saved).unwrap();
        let saved: Saved = serde_json::from_str(&text).unwrap();
        let sets = saved.restoring();
        assert_eq!(sets.len(), 2);
        assert_eq!((sets[0].vlan, sets[0].number), (Some(now.vlan), 3));
        assert_eq!((sets[1].trust, sets[1].mac), (Some(false), None));
    }
}
