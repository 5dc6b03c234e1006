//! Requests and answers of the generic netlink family `IPVS` (`linux/ip_vs.h`).

use std::net::{IpAddr, SocketAddr};

use super::{Change, Destination, Server, ServerKey};
use crate::wire::{Body, attributes, family as family_of, text, u16_at, u32_at};

pub(super) type Question = Body;

/// `GENL_ID_CTRL`, the family that knows the others.
pub(super) const CONTROL: u16 = 0x10;
const GENERIC_HEADER: usize = 4;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `IPVS_CMD_*`.
const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DEL_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DEST: u8 = 5;
const SET_DEST: u8 = 6;
const DEL_DEST: u8 = 7;
const GET_DEST: u8 = 8;
/// `IPVS_CMD_ATTR_*`.
const SERVICE: u16 = 1;
const DEST: u16 = 2;
/// `IPVS_SVC_ATTR_*`.
const SVC_FAMILY: u16 = 1;
const SVC_PROTOCOL: u16 = 2;
const SVC_ADDRESS: u16 = 3;
const SVC_PORT: u16 = 4;
const SVC_SCHEDULER: u16 = 6;
const SVC_FLAGS: u16 = 7;
const SVC_TIMEOUT: u16 = 8;
const SVC_NETMASK: u16 = 9;
/// `IPVS_DEST_ATTR_*`.
const DEST_ADDRESS: u16 = 1;
const DEST_PORT: u16 = 2;
const DEST_METHOD: u16 = 3;
const DEST_WEIGHT: u16 = 4;
const DEST_UPPER: u16 = 5;
const DEST_LOWER: u16 = 6;
const DEST_ACTIVE: u16 = 7;
const DEST_INACTIVE: u16 = 8;
const DEST_FAMILY: u16 = 11;
/// `IP_VS_SVC_F_PERSISTENT`, and the flags that a scheduler has (`IP_VS_SVC_F_SCHED1` to `3`).
const PERSISTENT: u32 = 0x1;
const OF_SCHEDULER: u32 = 0x38;
/// `IP_VS_CONN_F_MASQ`.
const MASQUERADE: u32 = 0;

fn command(number: u8) -> Body {
    Body::new(&[number, 1, 0, 0])
}

/// Which number the family has.
pub(super) fn family() -> Body {
    let mut body = command(GET_FAMILY);
    body.text(FAMILY_NAME, "IPVS");
    body
}

/// The number out of the answer.
pub(super) fn read_family(payload: &[u8]) -> Option<u16> {
    let (_, value) = attributes(payload.get(GENERIC_HEADER..)?).find(|(kind, _)| *kind == FAMILY_ID)?;
    u16_at(value, 0)
}

/// All virtual servers.
pub(super) fn get_servers() -> Body {
    command(GET_SERVICE)
}

/// The destinations of one.
pub(super) fn get_destinations(key: &ServerKey) -> Body {
    let mut body = command(GET_DEST);
    body.nest(SERVICE, |body| put_server(body, key, None));
    body
}

/// A change's request.
pub(super) fn change(change: &Change) -> Body {
    let (number, key, server, destination) = match change {
        Change::Add(key, server) => (NEW_SERVICE, key, Some(server), None),
        Change::Set(key, server) => (SET_SERVICE, key, Some(server), None),
        Change::Remove(key) => (DEL_SERVICE, key, None, None),
        Change::AddDestination(key, to, weight) => (NEW_DEST, key, None, Some((to, Some(*weight)))),
        Change::SetDestination(key, to, weight) => (SET_DEST, key, None, Some((to, Some(*weight)))),
        Change::RemoveDestination(key, to) => (DEL_DEST, key, None, Some((to, None))),
    };
    let mut body = command(number);
    body.nest(SERVICE, |body| put_server(body, key, server));
    if let Some((to, weight)) = destination {
        body.nest(DEST, |body| put_destination(body, to, weight));
    }
    body
}

fn put_server(body: &mut Body, key: &ServerKey, server: Option<&Server>) {
    let ip = key.at.ip();
    body.put(SVC_FAMILY, &u16::from(family_of(ip)).to_ne_bytes());
    body.put(SVC_PROTOCOL, &u16::from(key.protocol).to_ne_bytes());
    body.put(SVC_ADDRESS, &wide(ip));
    body.put(SVC_PORT, &key.at.port().to_be_bytes());
    let Some(server) = server else { return };
    body.text(SVC_SCHEDULER, &server.scheduler);
    let persistent = if server.persistence.is_some() { PERSISTENT } else { 0 };
    let mask = PERSISTENT | OF_SCHEDULER;
    let flags = [(persistent | server.flags).to_ne_bytes(), mask.to_ne_bytes()].concat();
    body.put(SVC_FLAGS, &flags);
    body.u32(SVC_TIMEOUT, server.persistence.unwrap_or(0));
    // Each client for itself: a mask, or of IPv6 the length of a prefix.
    body.u32(SVC_NETMASK, if ip.is_ipv4() { u32::MAX } else { 128 });
}

fn put_destination(body: &mut Body, to: &SocketAddr, weight: Option<u32>) {
    body.put(DEST_ADDRESS, &wide(to.ip()));
    body.put(DEST_PORT, &to.port().to_be_bytes());
    body.put(DEST_FAMILY, &u16::from(family_of(to.ip())).to_ne_bytes());
    let Some(weight) = weight else { return };
    body.u32(DEST_METHOD, MASQUERADE);
    body.u32(DEST_WEIGHT, weight);
    body.u32(DEST_UPPER, 0);
    body.u32(DEST_LOWER, 0);
}

/// An address in the room for one of either family.
fn wide(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut out = [0; 16];
            out[..4].copy_from_slice(&ip.octets());
            out
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A virtual server out of an answer; none where it is one that a mark leads to.
pub(super) fn read_server(payload: &[u8]) -> Option<(ServerKey, Server)> {
    let (_, service) = attributes(payload.get(GENERIC_HEADER..)?).find(|(kind, _)| *kind == SERVICE)?;
    let get = |kind: u16| attributes(service).find(|(k, _)| *k == kind).map(|(_, value)| value);
    let address = get(SVC_ADDRESS)?;
    let at = match i32::from(u16_at(get(SVC_FAMILY)?, 0)?) {
        libc::AF_INET => socket(address, get(SVC_PORT)?, false)?,
        libc::AF_INET6 => socket(address, get(SVC_PORT)?, true)?,
        _ => return None,
    };
    let protocol = u8::try_from(u16_at(get(SVC_PROTOCOL)?, 0)?).ok()?;
    let flags = u32_at(get(SVC_FLAGS)?, 0)?;
    let timeout = u32_at(get(SVC_TIMEOUT)?, 0)?;
    let server = Server {
        scheduler: text(get(SVC_SCHEDULER)?),
        persistence: (flags & PERSISTENT != 0).then_some(timeout),
        flags: flags & OF_SCHEDULER,
    };
    Some((ServerKey { at, protocol }, server))
}

/// A destination out of an answer.
pub(super) fn read_destination(payload: &[u8], ipv6: bool) -> Option<(SocketAddr, Destination)> {
    let (_, destination) = attributes(payload.get(GENERIC_HEADER..)?).find(|(kind, _)| *kind == DEST)?;
    let get = |kind: u16| attributes(destination).find(|(k, _)| *k == kind).map(|(_, value)| value);
    let number = |kind| u32_at(get(kind)?, 0);
    let connections = u64::from(number(DEST_ACTIVE)?) + u64::from(number(DEST_INACTIVE)?);
    let at = socket(get(DEST_ADDRESS)?, get(DEST_PORT)?, ipv6)?;
    Some((at, Destination { weight: number(DEST_WEIGHT)?, connections }))
}

fn socket(address: &[u8], port: &[u8], ipv6: bool) -> Option<SocketAddr> {
    let ip: IpAddr = match ipv6 {
        false => <[u8; 4]>::try_from(address.get(..4)?).ok()?.into(),
        true => <[u8; 16]>::try_from(address.get(..16)?).ok()?.into(),
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(port.get(..2)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable as _;
    use proptest::prelude::*;

    use super::*;
    use crate::ipvs::Scheduler;

    fn bytes(body: &Body) -> Vec<u8> {
        let mut out = vec![0; body.buffer_len()];
        body.emit(&mut out);
        out
    }

    #[test]
    fn a_server_reads_back_as_it_is_written() {
        for (at, scheduler, persistence) in [
            ("10.96.0.1:80", Scheduler::RoundRobin, None),
            ("[fd00:96::1]:53", Scheduler::Maglev, Some(10_800)),
        ] {
            let key = ServerKey { at: at.parse().unwrap(), protocol: 17 };
            let server = Server::new(scheduler, persistence);
            let body = change(&Change::Add(key, server.clone()));
            assert_eq!(read_server(&bytes(&body)), Some((key, server)));
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (read_server(&bytes), read_family(&bytes));
            let mut nested = command(NEW_SERVICE);
            nested.put(SERVICE, &bytes);
            let mut out = vec![0; nested.buffer_len()];
            nested.emit(&mut out);
            let _ = (read_server(&out), read_destination(&out, false), read_destination(&bytes, true));
        }
    }
}
