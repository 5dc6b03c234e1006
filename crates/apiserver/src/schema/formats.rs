//! The formats of texts that a custom kind's schema may ask for. Formats that are not here are not checked,
//! as kube-apiserver leaves those alone that it does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;

/// Whether a text has a format.
pub(super) fn is(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => text.parse::<Timestamp>().is_ok(),
        "date" => text.len() == 10 && text.parse::<Date>().is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<IpNet>().is_ok(),
        "byte" => STANDARD.decode(text).is_ok(),
        "mac" => mac(text),
        "uuid" => uuid(text),
        "hostname" => hostname(text),
        "email" => email(text),
        "uri" => uri(text),
        "duration" => duration(text),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(if text.contains('-') { '-' } else { ':' }).collect();
    matches!(parts.len(), 6 | 8 | 20) && parts.iter().all(|p| p.len() == 2 && hex(p))
}

fn uuid(text: &str) -> bool {
    let digits = text.replace('-', "");
    digits.len() == 32 && hex(&digits)
}

fn hostname(text: &str) -> bool {
    let label = |l: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        !l.is_empty() && l.len() <= 63 && l.bytes().all(inner) && !l.starts_with('-') && !l.ends_with('-')
    };
    text.len() <= 255 && text.trim_end_matches('.').split('.').all(label)
}

fn email(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    parts.is_some_and(|(who, host)| !who.is_empty() && !who.contains(char::is_whitespace) && hostname(host))
}

/// An absolute URI, or an absolute path.
fn uri(text: &str) -> bool {
    let plain = !text.contains(|c: char| c.is_control() || c == ' ');
    let scheme = text.split_once(':').is_some_and(|(scheme, rest)| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(inner) && !rest.is_empty()
    });
    plain && (scheme || text.starts_with('/'))
}

/// Go's duration, such as `1h30m`, or a number and a word, such as `3 days`.
fn duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "ms", "s", "m", "h", "d"];
    const WORDS: [&str; 7] = ["second", "minute", "hour", "day", "week", "millisecond", "nanosecond"];
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some((number, word)) = unsigned.split_once(' ') {
        let word = word.trim().trim_end_matches('s');
        return number.parse::<f64>().is_ok() && (WORDS.contains(&word) || UNITS.contains(&word));
    }
    let mut rest = unsigned;
    while !rest.is_empty() {
        let after = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let digits = &rest[..rest.len() - after.len()];
        let tail = after.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.');
        let unit = &after[..after.len() - tail.len()];
        if !digits.bytes().any(|b| b.is_ascii_digit())
            || digits.matches('.').count() > 1
            || !UNITS.contains(&unit)
        {
            return unsigned == "0";
        }
        rest = tail;
    }
    !unsigned.is_empty()
}

#[cfg(test)]
mod tests {
    use super::is;

    #[test]
    fn formats() {
        let good = [
            ("date-time", "2026-01-01T00:00:00Z"),
            ("date", "2026-02-28"),
            ("ipv4", "1.2.3.4"),
            ("ipv6", "::1"),
            ("cidr", "10.0.0.0/8"),
            ("byte", "YWI="),
            ("mac", "00:11:22:aa:bb:cc"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000"),
            ("hostname", "a.example.com"),
            ("email", "a@example.com"),
            ("uri", "https://example.com/x"),
            ("duration", "1h30m"),
            ("duration", "3 days"),
            ("whatever", "?"),
        ];
        for (format, text) in good {
            assert!(is(format, text), "{format} {text}");
        }
        let bad = [
            ("date-time", "yesterday"),
            ("date", "2026-02-30"),
            ("ipv4", "1.2.3"),
            ("cidr", "10.0.0.0/33"),
            ("byte", "*"),
            ("mac", "00:11"),
            ("uuid", "x"),
            ("hostname", "-a"),
            ("email", "a"),
            ("uri", "no uri"),
            ("duration", "1x"),
            ("duration", ""),
        ];
        for (format, text) in bad {
            assert!(!is(format, text), "{format} {text}");
        }
    }
}
