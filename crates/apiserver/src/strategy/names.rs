//! Names: their rules, and made-up ones.

use serde_json::{Value, json};

use crate::error::{ApiError, FieldError};
use crate::resource::Resource;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
pub(super) const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
/// The letters of generated names: none that look alike or spell words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Random bytes from the kernel.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            // Only a kernel before 3.17 lacks the call; nothing else of Weft runs there either.
            Err(_) => break,
        }
    }
    bytes
}

/// A UUID of version 4.
pub(crate) fn random_uid() -> String {
    let mut b = random_bytes::<16>();
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let n = u128::from_be_bytes(b);
    let part = |shift: u32, digits: u32| (n >> shift) & ((1u128 << (digits * 4)) - 1);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        part(96, 8),
        part(80, 4),
        part(64, 4),
        part(48, 4),
        part(0, 12)
    )
}

/// Checks the name of a new object, or makes one from `generateName`.
pub(super) fn settle(r: &Resource, meta: &mut Value) -> Result<(), ApiError> {
    let name = meta["name"].as_str().unwrap_or_default().to_owned();
    if !name.is_empty() {
        return check(r, &name);
    }
    let base = meta["generateName"].as_str().unwrap_or_default();
    if base.is_empty() {
        let missing = FieldError::required("metadata.name", "name or generateName is required");
        return Err(ApiError::invalid(r, "", &[missing]));
    }
    let base: String = base.chars().take(58).collect();
    let suffix: String =
        random_bytes::<5>().iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect();
    let name = base + &suffix;
    check(r, &name)?;
    meta["name"] = json!(name);
    Ok(())
}

/// Whether a text is a DNS label (RFC 1123).
pub(super) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is a DNS subdomain (RFC 1123).
pub(super) fn is_subdomain(text: &str) -> bool {
    let part = |p: &str| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        !p.is_empty() && p.bytes().all(inner) && !p.starts_with('-') && !p.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(part)
}

fn check(r: &Resource, name: &str) -> Result<(), ApiError> {
    let rule = match (&*r.group, &*r.kind) {
        ("", "Namespace") => (!is_label(name)).then_some(LABEL),
        ("", "Service") => {
            (!is_label(name) || name.starts_with(|c: char| c.is_ascii_digit())).then_some(LABEL_1035)
        }
        ("rbac.authorization.k8s.io", _) => {
            let bad = matches!(name, "." | "..") || name.contains(['/', '%']) || name.len() > 253;
            bad.then_some("may not be '.' or '..', contain '/' or '%', or be longer than 253 characters")
        }
        _ => (!is_subdomain(name)).then_some(SUBDOMAIN),
    };
    match rule {
        None => Ok(()),
        Some(rule) => {
            let bad = FieldError::invalid("metadata.name", &json!(name), rule);
            Err(ApiError::invalid(r, name, &[bad]))
        }
    }
}
