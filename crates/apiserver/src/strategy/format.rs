//! The forms of names, labels, addresses and the like: each function gives the rules that a text breaks.

use std::net::IpAddr;

use ipnet::IpNet;

/// The rules that a text breaks; none when it is good.
pub(crate) type Broken = Vec<String>;
/// The rules for a text.
pub(super) type Rules = fn(&str) -> Broken;

const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// The rule, if it is broken.
fn unless(good: bool, rule: impl FnOnce() -> String) -> Broken {
    if good { Vec::new() } else { vec![rule()] }
}

fn longest(text: &str, most: usize, unit: &str) -> Broken {
    unless(text.len() <= most, || format!("must be no more than {most} {unit}"))
}

/// Whether a text has only `inner` bytes and begins and ends with `edge` ones.
fn shaped(text: &str, edge: fn(&u8) -> bool, inner: fn(&u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(edge) && bytes.last().is_some_and(edge) && bytes.iter().all(inner)
}

fn lower(b: &u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_shape(text: &str) -> bool {
    shaped(text, lower, |b| lower(b) || *b == b'-')
}

fn subdomain_shape(text: &str) -> bool {
    text.split('.').all(label_shape)
}

fn qualified_shape(text: &str) -> bool {
    shaped(text, u8::is_ascii_alphanumeric, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Whether a text is a DNS label (RFC 1123).
pub(super) fn is_label(text: &str) -> bool {
    dns_label(text).is_empty()
}

/// A DNS label (RFC 1123).
pub(super) fn dns_label(text: &str) -> Broken {
    let mut broken = longest(text, 63, "characters");
    if subdomain_shape(text) && !label_shape(text) {
        broken.push("must not contain dots".into());
    } else if !label_shape(text) {
        broken.push(format!("a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"));
    }
    broken
}

/// A DNS label that begins with a letter (RFC 1035).
pub(super) fn dns_1035_label(text: &str) -> Broken {
    let mut broken = longest(text, 63, "characters");
    if !label_shape(text) || text.starts_with(|c: char| c.is_ascii_digit()) {
        broken.push("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".into());
    }
    broken
}

/// A DNS name in lower case (RFC 1123).
pub(super) fn dns_subdomain(text: &str) -> Broken {
    let mut broken = longest(text, 253, "characters");
    if !subdomain_shape(text) {
        broken.push(format!("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{SUBDOMAIN}')"));
    }
    broken
}

/// A DNS name whose first label is `*`.
pub(super) fn wildcard_subdomain(text: &str) -> Broken {
    let mut broken = longest(text, 253, "characters");
    if !text.strip_prefix("*.").is_some_and(subdomain_shape) {
        broken.push(format!("a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.{SUBDOMAIN}')"));
    }
    broken
}

/// A name that stands in a path of the API.
pub(super) fn path_segment(text: &str) -> Broken {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    let with = |c: char| unless(!text.contains(c), || format!("may not contain '{c}'"));
    [with('/'), with('%')].concat()
}

/// A label's key: a name with an optional prefix that is a DNS name.
pub(crate) fn label_key(key: &str) -> Broken {
    let parts: Vec<&str> = key.split('/').collect();
    let (mut broken, name) = match parts.as_slice() {
        [name] => (Vec::new(), *name),
        ["", name] => (vec!["prefix part must be non-empty".into()], *name),
        [prefix, name] => {
            let mut broken: Broken =
                dns_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")).collect();
            broken.iter_mut().for_each(|m| *m = m.replace("253 characters", "253 bytes"));
            (broken, *name)
        }
        _ => {
            let rule = format!(
                "a valid label key {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            );
            return vec![rule];
        }
    };
    if name.is_empty() {
        broken.push("name part must be non-empty".into());
    } else {
        broken.extend(longest(name, 63, "bytes").into_iter().map(|m| format!("name part {m}")));
    }
    if !qualified_shape(name) {
        broken.push(format!("name part {QUALIFIED}"));
    }
    broken
}

/// A label's value.
pub(crate) fn label_value(text: &str) -> Broken {
    let mut broken = longest(text, 63, "bytes");
    if !text.is_empty() && !qualified_shape(text) {
        broken.push("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')".into());
    }
    broken
}

/// The name of a port, as IANA has them.
pub(super) fn port_name(text: &str) -> Broken {
    let charset = !text.is_empty() && text.bytes().all(|b| lower(&b) || b == b'-');
    [
        longest(text, 15, "characters"),
        unless(charset, || "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into()),
        unless(text.bytes().any(|b| b.is_ascii_lowercase()), || {
            "must contain at least one letter (a-z)".into()
        }),
        unless(!text.contains("--"), || "must not contain consecutive hyphens".into()),
        unless(!text.starts_with('-') && !text.ends_with('-'), || {
            "must not begin or end with a hyphen".into()
        }),
    ]
    .concat()
}

/// A key of a ConfigMap or Secret.
pub(super) fn config_key(text: &str) -> Broken {
    let good = !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let mut broken = longest(text, 253, "characters");
    broken.extend(unless(good, || {
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into()
    }));
    broken.extend(match text {
        "." => vec!["must not be '.'".to_owned()],
        ".." => vec!["must not be '..'".to_owned()],
        _ => unless(!text.starts_with(".."), || "must not start with '..'".into()),
    });
    broken
}

/// The name of an environment variable, by the rule of 1.34.
pub(super) fn env_name(text: &str) -> Broken {
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=');
    let mut broken = unless(!text.is_empty(), || "environment variable name must be non-empty".into());
    broken.extend(unless(printable, || {
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
            .into()
    }));
    broken
}

/// An address; the rule of 1.36 also refuses leading zeros and IPv4 in IPv6.
pub(super) fn ip(text: &str) -> Broken {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(a)) if a.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) => Vec::new(),
        Err(_) if without_zeros(text).parse::<std::net::Ipv4Addr>().is_ok() => {
            vec!["must not have leading 0s".into()]
        }
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// An address in its one canonical form.
pub(super) fn canonical_ip(text: &str) -> Broken {
    let broken = ip(text);
    match text.parse::<IpAddr>() {
        Ok(address) if broken.is_empty() && address.to_string() != text => {
            vec![format!("must be in canonical form ({:?})", address.to_string())]
        }
        _ => broken,
    }
}

/// A network; the rule of 1.36 also refuses leading zeros and bits beyond the prefix.
pub(super) fn cidr(text: &str) -> Broken {
    let one = |rule: &str| vec![rule.to_owned()];
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let zeros = prefix.len() > 1 && prefix.starts_with('0') || prefix.starts_with('+');
    match text.parse::<IpNet>() {
        Ok(_) if zeros => one("must not have leading 0s in IP or prefix length"),
        Ok(IpNet::V6(net)) if net.addr().to_ipv4_mapped().is_some() => {
            one("must not have an IPv4-mapped IPv6 address")
        }
        Ok(net) if net.addr() != net.network() => one("must not have bits set beyond the prefix length"),
        Ok(_) => Vec::new(),
        Err(_) if format!("{}/{prefix}", without_zeros(address)).parse::<ipnet::Ipv4Net>().is_ok() => {
            one("must not have leading 0s in IP or prefix length")
        }
        Err(_) => one("must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
    }
}

fn without_zeros(address: &str) -> String {
    let part = |p: &str| match p.trim_start_matches('0') {
        "" if !p.is_empty() => "0".to_owned(),
        short => short.to_owned(),
    };
    address.split('.').map(part).collect::<Vec<_>>().join(".")
}

/// What an endpoint's address may not be; `text` is an address.
pub(super) fn endpoint_ip(text: &str) -> Broken {
    let Ok(address) = text.parse::<IpAddr>() else { return vec!["must be a valid IP address".into()] };
    let (local, multicast) = match address {
        IpAddr::V4(a) => (a.is_link_local(), a.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(a) => (a.is_unicast_link_local(), a.segments()[0] & 0xff0f == 0xff02),
    };
    [
        unless(!address.is_unspecified(), || format!("may not be unspecified ({text})")),
        unless(!address.is_loopback(), || "may not be in the loopback range (127.0.0.0/8, ::1/128)".into()),
        unless(!local, || "may not be in the link-local range (169.254.0.0/16, fe80::/10)".into()),
        unless(!multicast, || {
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".into()
        }),
    ]
    .concat()
}

/// A share such as `25%`.
pub(super) fn percent(text: &str) -> Broken {
    let good = text.strip_suffix('%').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    unless(good, || {
        "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')".into()
    })
}

/// The name of an HTTP header.
pub(super) fn http_header(text: &str) -> Broken {
    let good = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    unless(good, || {
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')".into()
    })
}

/// A DNS name to search in, where `_` may stand too.
pub(super) fn search_path(text: &str) -> Broken {
    let label = |l: &str| {
        let l = l.strip_prefix('_').unwrap_or(l);
        shaped(l, lower, |b| lower(b) || matches!(b, b'-' | b'_'))
    };
    let mut broken = longest(text, 253, "characters");
    broken.extend(unless(text.split('.').all(label), || {
        let part = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?";
        format!("a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '{part}(\\.{part})*')")
    }));
    broken
}
