//! Names: their rules, and made-up ones.

use serde_json::{Value, json};

use super::value::text;
use crate::resource::Resource;
use crate::storage::View;

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

/// Makes a name from `generateName` where there is none: one that is free, if eight tries find it.
pub(super) fn generate(r: &Resource, ns: Option<&str>, meta: &mut Value, view: &View<'_>) {
    let base = text(&meta["generateName"]);
    if !text(&meta["name"]).is_empty() || base.is_empty() {
        return;
    }
    let base: String = base.chars().take(58).collect();
    let made = || {
        let letters = random_bytes::<5>().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()]));
        base.clone() + &String::from_iter(letters)
    };
    let mut name = made();
    for _ in 0..7 {
        if view.get(&r.key(ns, &name)).is_none() {
            break;
        }
        name = made();
    }
    meta["name"] = json!(name);
}
