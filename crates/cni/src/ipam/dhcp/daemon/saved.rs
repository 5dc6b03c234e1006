//! The leases on disk: a file for each attachment, replaced as a whole, so that a daemon that is
//! started again goes on with what the one before acknowledged.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weft_ipam::dhcp::{hash128, v4, v6};

use crate::ipam::dhcp::daemon::attachment::{Attachment, Key};
use crate::ipam::dhcp::daemon::clock;
use crate::ipam::dhcp::daemon::place::Place;
use crate::ipam::dhcp::daemon::v4::V4;
use crate::ipam::dhcp::daemon::v6::V6;

/// A configuration of a megabyte and two leases fit.
const LARGEST: u64 = 4 << 20;

/// What is on disk of an attachment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Saved {
    pub(crate) container_id: String,
    pub(crate) network: String,
    pub(crate) ifname: String,
    /// CNI_ARGS of the ADD, and `ipam` of its configuration.
    pub(crate) args: String,
    pub(crate) ipam: Map<String, Value>,
    pub(crate) place: Place,
    v4: Option<SavedV4>,
    v6: Option<SavedV6>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedV4 {
    address: Ipv4Addr,
    /// Seconds since 1970.
    acquired: u64,
    /// Numbers and hexadecimal values.
    options: Vec<(u8, String)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedV6 {
    acquired: u64,
    options: String,
}

impl Saved {
    pub(crate) fn of(attachment: &Attachment, now: Duration) -> Saved {
        let v4 = attachment.v4.as_ref().and_then(V4::lease).map(|lease| SavedV4 {
            address: lease.address.addr(),
            acquired: clock::to_wall(lease.acquired, now),
            options: lease.options.iter().map(|(code, value)| (code, hex(value))).collect(),
        });
        let v6 = attachment.v6.as_ref().and_then(V6::lease).map(|lease| {
            let mut bytes = Vec::new();
            lease.options.encode(&mut bytes);
            SavedV6 { acquired: clock::to_wall(lease.acquired, now), options: hex(&bytes) }
        });
        Saved {
            container_id: attachment.key.container_id.clone(),
            network: attachment.key.network.clone(),
            ifname: attachment.key.ifname.clone(),
            args: attachment.origin.args.clone(),
            ipam: attachment.origin.ipam.clone(),
            place: attachment.place.clone(),
            v4,
            v6,
        }
    }

    pub(crate) fn key(&self) -> Key {
        Key {
            container_id: self.container_id.clone(),
            network: self.network.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// The leases, as far as they are some. `iaid` is the IPv6 association's number.
    pub(crate) fn leases(&self, iaid: u32, now: Duration) -> (Option<v4::Lease>, Option<v6::Lease>) {
        let v4 = self.v4.as_ref().and_then(|saved| {
            let mut options = v4::Options::default();
            for (code, value) in &saved.options {
                options.set(*code, unhex(value)?);
            }
            v4::Lease::new(saved.address, options, clock::from_wall(saved.acquired, now)).ok()
        });
        let v6 = self.v6.as_ref().and_then(|saved| {
            let options = v6::Options::decode(&unhex(&saved.options)?).ok()?;
            v6::Lease::new(options, iaid, clock::from_wall(saved.acquired, now)).ok()
        });
        (v4, v6)
    }
}

/// The folder of the files.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        fs::create_dir_all(path)?;
        Ok(Folder(path.to_owned()))
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.0.join(format!("{:032x}.json", hash128(key.to_string().as_bytes())))
    }

    /// Replaces the file of an attachment; it is on the disk afterwards.
    pub(crate) fn save(&self, saved: &Saved) -> io::Result<()> {
        let path = self.file(&saved.key());
        let aside = path.with_extension("new");
        let mut file = File::create(&aside)?;
        file.write_all(&serde_json::to_vec(saved)?)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        self.sync()
    }

    /// Removes the file of an attachment, if there is one.
    pub(crate) fn remove(&self, key: &Key) -> io::Result<()> {
        match fs::remove_file(self.file(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.sync(),
        }
    }

    /// All that is there. What cannot be read is said and left where it is.
    pub(crate) fn load(&self) -> io::Result<Vec<Saved>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                match read(&path) {
                    Ok(saved) => all.push(saved),
                    Err(error) => eprintln!("{}: {error}: this lease is not gone on with", path.display()),
                }
            }
        }
        Ok(all)
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

fn read(path: &Path) -> io::Result<Saved> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_text() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unhex(&hex(&all)), Some(all));
        assert_eq!((unhex("0"), unhex("zz"), unhex("")), (None, None, Some(vec![])));
    }
}
