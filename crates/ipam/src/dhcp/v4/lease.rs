//! What a server's ACK gives.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::message::{Options, option};
use crate::dhcp::{Settings, StaticRoute, name};

/// What a server that names no length means, as the reference takes it.
const DEFAULT_LENGTH: u32 = 3600;
/// A shorter lease would be asked for again and again.
const SHORTEST: u32 = 10;
const INFINITE: u32 = u32::MAX;
/// Smallest MTU that IPv4 knows (RFC 2132 §5.1).
const SMALLEST_MTU: u16 = 68;

/// A lease. Its times are those of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address with the subnet's prefix length.
    pub address: Ipv4Net,
    /// The server that gave it.
    pub server: Ipv4Addr,
    /// When it was asked for, from which on its times count.
    pub acquired: Duration,
    /// When the server is asked to extend it (T1). No time is never.
    pub renewal: Option<Duration>,
    /// When any server is asked to (T2).
    pub rebinding: Option<Duration>,
    /// When it ends.
    pub expiry: Option<Duration>,
    /// The options of the ACK.
    pub options: Options,
}

/// Why what a server gives cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// No subnet mask.
    #[error("it gives no subnet mask (option 1)")]
    NoMask,
    /// Ones after zeros.
    #[error("its subnet mask (option 1) is none")]
    Mask,
    /// No host has such an address.
    #[error("{0} is no host's address")]
    Address(Ipv4Addr),
    /// It would end at once.
    #[error("its lease lasts {0} s, less than {SHORTEST} s (option 51)")]
    Short(u32),
    /// Nobody to ask for an extension.
    #[error("it does not name its server (option 54)")]
    NoServer,
}

impl Lease {
    /// The lease of these options, if it is one.
    pub fn new(address: Ipv4Addr, options: Options, acquired: Duration) -> Result<Lease, Unusable> {
        let server = options.address(option::SERVER_ID).ok_or(Unusable::NoServer)?;
        let mask = options.address(option::SUBNET_MASK).ok_or(Unusable::NoMask)?;
        let subnet = Ipv4Net::with_netmask(address, mask).map_err(|_| Unusable::Mask)?;
        if address.is_unspecified() || address.is_loopback() || address.octets()[0] >= 224 {
            return Err(Unusable::Address(address));
        }
        let seconds = |s: u32| Duration::from_secs(s.into());
        let length = options.number(option::LEASE_TIME).unwrap_or(DEFAULT_LENGTH);
        let mut lease = Lease {
            address: subnet,
            server,
            acquired,
            renewal: None,
            rebinding: None,
            expiry: None,
            options,
        };
        match length {
            INFINITE => return Ok(lease),
            0..SHORTEST => return Err(Unusable::Short(length)),
            _ => {}
        }
        // RFC 2131 §4.4.5; a server's times are taken if they are in order.
        let rebinding = lease.options.number(option::REBINDING_TIME).filter(|t2| *t2 > 1 && *t2 < length);
        let rebinding = rebinding.unwrap_or(length - length.div_ceil(8));
        let renewal = lease.options.number(option::RENEWAL_TIME).filter(|t1| *t1 > 0 && *t1 < rebinding);
        lease.renewal = Some(acquired + seconds(renewal.unwrap_or((length / 2).min(rebinding - 1))));
        lease.rebinding = Some(acquired + seconds(rebinding));
        lease.expiry = Some(acquired + seconds(length));
        Ok(lease)
    }

    /// What it says about the network.
    pub fn settings(&self) -> Settings {
        let options = &self.options;
        let addresses = |code| options.addresses(code).map(Into::into).collect();
        let mtu = options.get(option::MTU).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes);
        Settings {
            routers: addresses(option::ROUTER),
            routes: routes(options),
            dns_servers: addresses(option::DNS),
            domain: options.get(option::DOMAIN).and_then(name::text),
            search: options.get(option::SEARCH).map(name::list).unwrap_or_default(),
            ntp_servers: addresses(option::NTP),
            mtu: mtu.filter(|mtu| *mtu >= SMALLEST_MTU),
            vendor: options.get(option::VENDOR).unwrap_or_default().to_vec(),
        }
    }
}

fn routes(options: &Options) -> Vec<StaticRoute> {
    for code in [option::CLASSLESS_ROUTES, option::MICROSOFT_ROUTES] {
        let routes = options.get(code).map(classless).unwrap_or_default();
        if !routes.is_empty() {
            return routes;
        }
    }
    let (pairs, _) = options.get(option::STATIC_ROUTES).unwrap_or_default().as_chunks::<8>();
    let mut routes: Vec<StaticRoute> = pairs
        .iter()
        .filter_map(|pair| {
            let (destination, gateway) = (quad(&pair[..4])?, quad(&pair[4..])?);
            route(destination, class(destination)?, gateway)
        })
        .collect();
    let default = options.addresses(option::ROUTER).next();
    routes.extend(default.and_then(|router| route(Ipv4Addr::UNSPECIFIED, 0, router)));
    routes
}

/// RFC 3442: prefix length, as many bytes of the destination as it needs, next hop.
fn classless(mut bytes: &[u8]) -> Vec<StaticRoute> {
    let mut routes = Vec::new();
    while let [prefix @ 0..=32, rest @ ..] = bytes {
        let significant = usize::from(prefix.div_ceil(8));
        let (Some(destination), Some(gateway)) =
            (rest.get(..significant), rest.get(significant..significant + 4))
        else {
            return Vec::new();
        };
        let mut octets = [0; 4];
        octets[..significant].copy_from_slice(destination);
        routes.extend(quad(gateway).and_then(|gateway| route(octets.into(), *prefix, gateway)));
        bytes = &rest[significant + 4..];
    }
    // What is cut short or has a prefix of 33 bits is wrong as a whole.
    if bytes.is_empty() { routes } else { Vec::new() }
}

fn route(destination: Ipv4Addr, prefix: u8, gateway: Ipv4Addr) -> Option<StaticRoute> {
    let net = Ipv4Net::new(destination, prefix).ok()?.trunc();
    Some(StaticRoute { destination: net.into(), gateway: gateway.into() })
}

fn quad(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Into::into)
}

/// The prefix length of the address' class; none for what is no network.
fn class(address: Ipv4Addr) -> Option<u8> {
    match address.octets()[0] {
        0..128 => Some(8),
        128..192 => Some(16),
        192..224 => Some(24),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 9);

    fn options(more: &[(u8, &[u8])]) -> Options {
        let mut options = Options::default();
        options.set(option::SERVER_ID, [10, 1, 0, 1]);
        options.set(option::SUBNET_MASK, [255, 255, 0, 0]);
        for (code, value) in more {
            options.set(*code, *value);
        }
        options
    }

    fn shown(more: &[(u8, &[u8])]) -> Vec<String> {
        let lease = Lease::new(ADDRESS, options(more), Duration::ZERO).unwrap();
        let text = |r: &StaticRoute| format!("{} {}", r.destination, r.gateway);
        lease.settings().routes.iter().map(text).collect()
    }

    #[test]
    fn classless_routes_go_before_microsofts_and_these_before_the_old_ones() {
        let router: (u8, &[u8]) = (3, &[10, 1, 0, 1, 10, 1, 0, 2]);
        let old: (u8, &[u8]) = (33, &[172, 16, 5, 0, 10, 1, 0, 3, 224, 0, 0, 0, 1, 1, 1, 1]);
        let microsoft: (u8, &[u8]) = (249, &[8, 11, 10, 1, 0, 4]);
        let classless: (u8, &[u8]) = (121, &[0, 10, 1, 0, 5, 25, 192, 0, 2, 128, 0, 0, 0, 0]);
        assert_eq!(shown(&[router, old]), ["172.16.0.0/16 10.1.0.3", "0.0.0.0/0 10.1.0.1"]);
        assert_eq!(shown(&[router, old, microsoft]), ["11.0.0.0/8 10.1.0.4"]);
        let best = ["0.0.0.0/0 10.1.0.5", "192.0.2.128/25 0.0.0.0"];
        assert_eq!(shown(&[router, old, microsoft, classless]), best);
        assert_eq!(shown(&[router, (121, &[33, 1])]), ["0.0.0.0/0 10.1.0.1"], "one that is wrong is none");
    }

    #[test]
    fn times_are_the_servers_if_they_are_in_order() {
        let lease =
            |more: &[(u8, &[u8])]| Lease::new(ADDRESS, options(more), Duration::from_secs(100)).unwrap();
        let times =
            |lease: &Lease| [lease.renewal, lease.rebinding, lease.expiry].map(|t| t.unwrap().as_secs());
        assert_eq!(times(&lease(&[])), [1900, 3250, 3700]);
        let own: [(u8, &[u8]); 3] = [(51, &[0, 0, 1, 0]), (58, &[0, 0, 0, 9]), (59, &[0, 0, 0, 20])];
        assert_eq!(times(&lease(&own)), [109, 120, 356]);
        let wrong: [(u8, &[u8]); 3] = [(51, &[0, 0, 0, 10]), (58, &[0, 0, 0, 50]), (59, &[0, 0, 0, 1])];
        assert_eq!(times(&lease(&wrong)), [105, 108, 110]);
        assert_eq!(lease(&[(51, &[0xff; 4])]).expiry, None);
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let fault = |address: [u8; 4], more: &[(u8, &[u8])]| {
            Lease::new(address.into(), options(more), Duration::ZERO).unwrap_err()
        };
        assert_eq!(fault([10, 1, 0, 9], &[(51, &[0; 4])]), Unusable::Short(0));
        assert_eq!(fault([10, 1, 0, 9], &[(1, &[0, 255, 0, 0])]), Unusable::Mask);
        assert_eq!(fault([10, 1, 0, 9], &[(1, &[255])]), Unusable::NoMask);
        assert_eq!(fault([10, 1, 0, 9], &[(54, &[])]), Unusable::NoServer);
        assert_eq!(fault([224, 0, 0, 9], &[]), Unusable::Address([224, 0, 0, 9].into()));
    }

    proptest! {
        #[test]
        fn no_options_make_it_panic(
            values in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..40)), 0..8),
            length in any::<u32>(), t1 in any::<u32>(), t2 in any::<u32>(),
        ) {
            let mut options = options(&[
                (51, &length.to_be_bytes()), (58, &t1.to_be_bytes()), (59, &t2.to_be_bytes()),
            ]);
            for (code, value) in values {
                options.set(code, value);
            }
            if let Ok(lease) = Lease::new(ADDRESS, options, Duration::ZERO) {
                let _ = lease.settings();
                prop_assert!(lease.renewal <= lease.rebinding && lease.rebinding <= lease.expiry);
            }
        }
    }
}
