//! The keys of `ipam` for DHCP, and what a client asks for because of them.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Map, Value};
use weft_ipam::dhcp::{hash128, v4, v6};

use crate::protocol::any_case::AnyCase;
use crate::protocol::config::invalid;
use crate::protocol::error::{CniError, code};

/// Where the daemon listens.
pub(crate) const SOCKET: &str = "/run/cni/dhcp.sock";
/// An option in the configuration is one byte of length (RFC 2132).
const LONGEST_VALUE: usize = 255;
/// The reference's client identifier is a zero byte and as much as then fits.
const LONGEST_ID: usize = 254;

/// What `ipam` holds for DHCP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Keys {
    /// The daemon's socket.
    daemon_socket_path: Option<PathBuf>,
    request: Option<Vec<Request>>,
    provide: Option<Vec<Provide>>,
    /// The metric of the routes.
    priority: Option<i64>,
    /// Whether there is an IPv4 lease; yes unless it is said.
    dhcpv4: Option<bool>,
    /// Whether there is an IPv6 lease; no unless it is said.
    dhcpv6: Option<V6>,
    client_identifier: Option<Identifier>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Request {
    skip_default: bool,
    option: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Provide {
    option: String,
    value: Option<String>,
    #[serde(alias = "fromCNIArg")]
    from_arg: Option<String>,
}

/// What is asked of DHCPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum V6 {
    /// An address and settings.
    Stateful,
    /// Settings alone.
    Stateless,
}

/// How the IPv4 client names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Identifier {
    /// As the reference: container, network and interface.
    Container,
    /// By its DUID, as to DHCPv6 servers (RFC 4361).
    Duid,
}

/// What an attachment asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Profile {
    /// IPv4: which options to ask for, and which to give; none for no IPv4.
    pub(crate) v4: Option<(Vec<u8>, v4::Options)>,
    /// IPv6: what to ask for.
    pub(crate) v6: Option<V6>,
    /// The DUID and the number of the association.
    pub(crate) duid: (Vec<u8>, u32),
    /// The metric of the routes.
    pub(crate) priority: Option<u32>,
}

/// Who an attachment is: the reference's client identifier, cut as there.
pub(crate) fn identity(container_id: &str, network: &str, ifname: &str) -> String {
    let mut id = format!("{container_id}/{network}/{ifname}");
    while id.len() > LONGEST_ID {
        id.pop();
    }
    id
}

impl Keys {
    /// The keys of `ipam`.
    pub(crate) fn of(ipam: &Map<String, Value>) -> Result<Keys, CniError> {
        Keys::deserialize(AnyCase(Value::Object(ipam.clone()))).map_err(|error| {
            CniError::new(code::DECODE, format!("cannot decode ipam in the configuration: {error}"))
        })
    }

    /// The daemon's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        let given = self.daemon_socket_path.clone().filter(|path| !path.as_os_str().is_empty());
        given.unwrap_or_else(|| SOCKET.into())
    }

    /// What the attachment `id` asks for; `args` is CNI_ARGS.
    pub(crate) fn profile(&self, id: &str, args: &str) -> Result<Profile, CniError> {
        let duid = v6::duid(id.as_bytes());
        // The association's number, of which an interface has one (RFC 8415 §12).
        let iaid = u32::try_from(hash128(id.as_bytes()) >> 96).unwrap_or_default();
        let priority = self.priority.filter(|metric| *metric != 0);
        let metric = |n: i64| {
            u32::try_from(n).map_err(|_| invalid(&format!("ipam.priority: {n} is no metric of a route")))
        };
        let wants_v4 = self.dhcpv4.unwrap_or(true);
        if !wants_v4 && self.dhcpv6.is_none() {
            return Err(invalid(
                "ipam.dhcpv4: it is off and ipam.dhcpv6 is not set, so nothing is asked for",
            ));
        }
        let mut provided = v4::Options::default();
        let identifier = match self.client_identifier.unwrap_or(Identifier::Container) {
            Identifier::Container => [&[0], id.as_bytes()].concat(),
            Identifier::Duid => [&[255][..], &iaid.to_be_bytes(), &duid].concat(),
        };
        provided.set(v4::option::CLIENT_ID, identifier);
        self.provide(&mut provided, args)?;
        let requested = self.requested()?;
        Ok(Profile {
            v4: wants_v4.then_some((requested, provided)),
            v6: self.dhcpv6,
            duid: (duid, iaid),
            priority: priority.map(metric).transpose()?,
        })
    }

    fn provide(&self, options: &mut v4::Options, args: &str) -> Result<(), CniError> {
        for (index, keys) in self.provide.iter().flatten().enumerate() {
            let place = format!("ipam.provide[{index}]");
            let option = number(&keys.option, &format!("{place}.option"))?;
            let from_arg = keys.from_arg.as_deref().filter(|key| !key.is_empty());
            let from_arg = from_arg.and_then(|key| cni_arg(args, key).map(|value| (value, "fromArg")));
            let value = keys.value.as_deref().filter(|value| !value.is_empty()).map(|value| (value, "value"));
            // What comes from CNI_ARGS goes before what is written down.
            for (value, key) in value.into_iter().chain(from_arg) {
                if value.len() > LONGEST_VALUE {
                    return Err(invalid(&format!("{place}.{key}: it is longer than {LONGEST_VALUE} bytes")));
                }
                options.set(option, value);
            }
        }
        Ok(())
    }

    /// As the reference: a router and a mask unless they are to be left out; when nothing is left
    /// then, what its library asks for by itself.
    fn requested(&self) -> Result<Vec<u8>, CniError> {
        use v4::option::{DNS, DOMAIN, ROUTER, SUBNET_MASK};
        let mut codes = Vec::new();
        for (index, keys) in self.request.iter().flatten().enumerate() {
            if let Some(option) = keys.option.as_deref().filter(|option| !option.is_empty()) {
                codes.push(number(option, &format!("ipam.request[{index}].option"))?);
            }
        }
        if !self.request.iter().flatten().any(|keys| keys.skip_default) {
            codes.extend([ROUTER, SUBNET_MASK]);
        }
        if codes.is_empty() {
            codes.extend([SUBNET_MASK, ROUTER, DOMAIN, DNS]);
        }
        let mut seen = Vec::new();
        codes.retain(|code| {
            !seen.contains(code) && {
                seen.push(*code);
                true
            }
        });
        Ok(codes)
    }
}

/// The value of a key in CNI_ARGS; the last one counts.
fn cni_arg<'a>(args: &'a str, key: &str) -> Option<&'a str> {
    let mut pairs = args.split(';').filter_map(|pair| pair.split_once('='));
    pairs.rfind(|(name, _)| *name == key).map(|(_, value)| value)
}

/// An option by its number, or by its name in dhcp-options(5).
fn number(option: &str, place: &str) -> Result<u8, CniError> {
    use v4::option as o;
    let named = match option {
        "dhcp-client-identifier" => Some(o::CLIENT_ID),
        "subnet-mask" => Some(o::SUBNET_MASK),
        "routers" => Some(o::ROUTER),
        "host-name" => Some(o::HOST_NAME),
        "user-class" => Some(o::USER_CLASS),
        "vendor-class-identifier" => Some(o::VENDOR_CLASS),
        _ => option.parse().ok(),
    };
    named.ok_or_else(|| {
        let names =
            "dhcp-client-identifier, subnet-mask, routers, host-name, user-class, vendor-class-identifier";
        invalid(&format!("{place}: {option:?} is no DHCP option: give a number up to 255 or one of {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(ipam: Value, args: &str) -> Result<Profile, CniError> {
        let Value::Object(ipam) = ipam else { panic!("an object") };
        Keys::of(&ipam)?.profile("pod/net/eth0", args)
    }

    fn v4(ipam: Value, args: &str) -> (Vec<u8>, v4::Options) {
        profile(ipam, args).unwrap().v4.unwrap()
    }

    #[test]
    fn the_reference_asks_for_a_router_and_a_mask() {
        let (requested, provided) = v4(serde_json::json!({}), "");
        assert_eq!(requested, [3, 1]);
        assert_eq!(provided.get(61), Some(&b"\0pod/net/eth0"[..]));
        let skip = serde_json::json!({"request": [{"skipDefault": true}]});
        assert_eq!(v4(skip, "").0, [1, 3, 15, 6]);
        let more = serde_json::json!({"request": [{"option": "121"}, {"option": "routers"}]});
        assert_eq!(v4(more, "").0, [121, 3, 1]);
        let alone = serde_json::json!({"request": [{"skipDefault": true, "option": "6"}]});
        assert_eq!(v4(alone, "").0, [6]);
    }

    #[test]
    fn cni_args_go_before_the_configuration() {
        let provide = serde_json::json!({"provide": [
            {"option": "12", "value": "fixed", "fromArg": "K8S_POD_NAME"},
            {"option": "vendor-class-identifier", "fromArg": "MISSING"},
        ]});
        assert_eq!(v4(provide.clone(), "A=b;K8S_POD_NAME=web-0").1.get(12), Some(&b"web-0"[..]));
        let provided = v4(provide, "").1;
        assert_eq!((provided.get(12), provided.get(60)), (Some(&b"fixed"[..]), None));
    }

    #[test]
    fn what_is_wrong_names_its_key() {
        let long = "x".repeat(256);
        for (ipam, place) in [
            (serde_json::json!({"request": [{}, {"option": "256"}]}), "ipam.request[1].option"),
            (serde_json::json!({"provide": [{"option": "bootfile"}]}), "ipam.provide[0].option"),
            (serde_json::json!({"provide": [{"option": "12", "value": long}]}), "ipam.provide[0].value"),
            (serde_json::json!({"priority": -1}), "ipam.priority"),
            (serde_json::json!({"dhcpv4": false}), "ipam.dhcpv4"),
        ] {
            let error = profile(ipam, "").unwrap_err();
            assert!(error.code == code::INVALID_CONFIG && error.message.contains(place), "{error}");
        }
        let error = profile(serde_json::json!({"dhcpv6": "slaac"}), "").unwrap_err();
        assert_eq!(error.code, code::DECODE);
    }

    #[test]
    fn an_identifier_is_the_same_for_ever_and_both_families_may_share_it() {
        let ipam = serde_json::json!({"dhcpv6": "stateful", "clientIdentifier": "duid"});
        let one = profile(ipam.clone(), "").unwrap();
        assert_eq!(one, profile(ipam, "").unwrap());
        assert_eq!((one.duid.0.len(), &one.duid.0[..2]), (18, &[0, 4][..]));
        let id = one.v4.unwrap().1.get(61).unwrap().to_vec();
        assert_eq!(id, [&[255][..], &one.duid.1.to_be_bytes(), &one.duid.0].concat());
        assert_eq!(identity(&"a".repeat(300), "n", "e").len(), 254);
    }
}
