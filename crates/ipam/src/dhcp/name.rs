//! Domain names in options: plain in DHCPv6 (RFC 3646), compressed in option 119 (RFC 3397).

/// Longest name as text; longer ones are no names (RFC 1035).
const LONGEST: usize = 253;
/// Compression may not point forward, so a chain ends; this many jumps are beyond any sender.
const JUMPS: usize = 16;
/// No list is longer.
const MOST: usize = 64;

/// The names of a list. Pointers count from the start of `bytes`. A list that is cut short or
/// otherwise wrong gives the names before that place.
pub(crate) fn list(bytes: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < bytes.len() && names.len() < MOST {
        let Some((name, next)) = one(bytes, at) else { break };
        if !name.is_empty() {
            names.push(name);
        }
        at = next;
    }
    names
}

/// The name at `at`, and where the next one begins.
fn one(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut after, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((name, after.unwrap_or(at + 1))),
            1..64 => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                if !label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|b| char::from(*b)));
                if name.len() > LONGEST {
                    return None;
                }
                at += 1 + length;
            }
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                jumps += 1;
                if target >= at || jumps > JUMPS {
                    return None;
                }
                after.get_or_insert(at + 2);
                at = target;
            }
            _ => return None,
        }
    }
}

/// A domain name given as text (option 15), without what no name has.
pub(crate) fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim_end_matches(['\0', '.']);
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (!text.is_empty() && text.len() <= LONGEST && text.chars().all(fits)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_point_back() {
        // The example of RFC 3397 §2.
        let bytes = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
        assert_eq!(list(bytes), ["eng.apple.com", "marketing.apple.com"]);
    }

    #[test]
    fn a_list_ends_where_it_is_wrong() {
        assert_eq!(list(b"\x01a\0\x05bc"), ["a"]);
        assert_eq!(list(b"\xc0\x00"), [""; 0]);
        assert_eq!(list(b"\x01a\xc0\x00"), [""; 0]);
        assert_eq!(list(b"\x03a b\0"), [""; 0]);
        assert_eq!(text(b"shop.example.\0").as_deref(), Some("shop.example"));
        assert_eq!(text(b"a\nnameserver 6.6.6.6"), None);
    }
}
