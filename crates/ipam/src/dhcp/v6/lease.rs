//! What a server's REPLY gives.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::message::{Options, option, status};
use crate::dhcp::{Settings, name};

const INFINITE: u32 = u32::MAX;
/// A shorter lease would be asked for again and again.
const SHORTEST: u32 = 10;
const NTP_ADDRESSES: std::ops::RangeInclusive<u16> = 1..=2;

/// A lease of one address. Its times are those of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address. It says nothing of a prefix: routers do that.
    pub address: Ipv6Addr,
    /// The server's DUID.
    pub server: Vec<u8>,
    /// When it was asked for, from which on its times count.
    pub acquired: Duration,
    /// When the server is asked to extend it (T1). No time is never.
    pub renewal: Option<Duration>,
    /// When any server is asked to (T2).
    pub rebinding: Option<Duration>,
    /// When it ends.
    pub expiry: Option<Duration>,
    /// The options of the REPLY.
    pub options: Options,
}

/// Why what a server gives cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The server names itself in no way.
    #[error("it does not name its server (option 2)")]
    NoServer,
    /// No association, or another one.
    #[error("it has no address for this interface (option 3)")]
    NoAddress,
    /// The server has a reason.
    #[error("the server refuses with status {0}")]
    Status(u16),
    /// No host has such an address.
    #[error("{0} is no host's address")]
    Address(Ipv6Addr),
    /// It would end at once.
    #[error("its lease lasts {0} s, less than {SHORTEST} s")]
    Short(u32),
}

impl Lease {
    /// The lease of these options for the association `iaid`, if they have one.
    pub fn new(options: Options, iaid: u32, acquired: Duration) -> Result<Lease, Unusable> {
        let server =
            options.get(option::SERVER_ID).filter(|id| !id.is_empty()).ok_or(Unusable::NoServer)?.to_vec();
        match options.status() {
            status::SUCCESS => {}
            other => return Err(Unusable::Status(other)),
        }
        let of_ours = |value: &&[u8]| value.starts_with(&iaid.to_be_bytes());
        let association = options.all(option::IA_NA).find(of_ours).ok_or(Unusable::NoAddress)?;
        let (head, inner) = association.split_first_chunk::<12>().ok_or(Unusable::NoAddress)?;
        let (head, inner) = (*head, Options::decode(inner).map_err(|_| Unusable::NoAddress)?);
        if inner.status() != status::SUCCESS {
            return Err(Unusable::Status(inner.status()));
        }
        let value = inner.get(option::IA_ADDRESS).and_then(<[u8]>::split_first_chunk::<24>);
        let (value, more) = value.ok_or(Unusable::NoAddress)?;
        let refused = Options::decode(more).map_or(status::SUCCESS, |options| options.status());
        if refused != status::SUCCESS {
            return Err(Unusable::Status(refused));
        }
        let number = |bytes: &[u8], at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| bytes[at + i]));
        let (address, rest) = value.split_first_chunk::<16>().ok_or(Unusable::NoAddress)?;
        let address = Ipv6Addr::from(*address);
        if address.is_multicast() || address.is_loopback() || address.is_unspecified() {
            return Err(Unusable::Address(address));
        }
        let (valid, preferred) = (number(rest, 4), number(rest, 0).min(number(rest, 4)));
        let mut lease =
            Lease { address, server, acquired, renewal: None, rebinding: None, expiry: None, options };
        match valid {
            INFINITE => return Ok(lease),
            0..SHORTEST => return Err(Unusable::Short(valid)),
            _ => {}
        }
        // RFC 8415 §21.4: 0 leaves the times to the client, which takes half and eight tenths.
        let base = if preferred >= SHORTEST { preferred } else { valid };
        let part = |tenths: u64| u32::try_from(u64::from(base) * tenths / 10).unwrap_or(u32::MAX);
        let rebinding = Some(number(&head, 8)).filter(|t2| *t2 > 1 && *t2 < valid).unwrap_or(part(8));
        let renewal = Some(number(&head, 4)).filter(|t1| *t1 > 0 && *t1 < rebinding);
        let at = |seconds: u32| Some(acquired + Duration::from_secs(seconds.into()));
        lease.renewal = at(renewal.unwrap_or(part(5).min(rebinding - 1)));
        lease.rebinding = at(rebinding);
        lease.expiry = at(valid);
        Ok(lease)
    }

    /// What it says about the network.
    pub fn settings(&self) -> Settings {
        Lease::settings_of(&self.options)
    }

    /// What the options of any REPLY say about the network.
    pub fn settings_of(options: &Options) -> Settings {
        Settings {
            dns_servers: options.all(option::DNS).flat_map(addresses).collect(),
            search: options.all(option::SEARCH).flat_map(name::list).collect(),
            ntp_servers: options.all(option::NTP).flat_map(time_servers).collect(),
            ..Settings::default()
        }
    }
}

fn addresses(bytes: &[u8]) -> Vec<IpAddr> {
    let (all, _) = bytes.as_chunks::<16>();
    all.iter().map(|octets| Ipv6Addr::from(*octets).into()).collect()
}

/// Suboptions 1 and 2 are addresses (RFC 5908 §4), 3 is a name.
fn time_servers(bytes: &[u8]) -> Vec<IpAddr> {
    let inner = Options::decode(bytes).unwrap_or_default();
    NTP_ADDRESSES.flat_map(|code| inner.all(code).flat_map(addresses).collect::<Vec<_>>()).collect()
}
