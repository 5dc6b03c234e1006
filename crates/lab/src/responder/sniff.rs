//! What a client of a TCP port speaks, from its first bytes.

use super::WHOAMI;

const METHODS: [&[u8]; 9] =
    [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ", b"TRACE ", b"CONNECT "];
/// A request line longer than this is no HTTP.
const LONGEST_LINE: usize = 8192;

/// What the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// An HTTP/1 request.
    Http,
    /// The question who answers.
    Whoami,
    /// Anything else: it comes back.
    Echo,
    /// Could still be one or the other.
    Unclear,
}

/// Judges the bytes received so far.
pub(super) fn sniff(bytes: &[u8]) -> Speech {
    let begins = |word: &[u8]| bytes.starts_with(word);
    let could_begin = |word: &[u8]| word.starts_with(bytes);
    if begins(WHOAMI) {
        return Speech::Whoami;
    }
    if METHODS.iter().any(|method| begins(method)) {
        return match bytes.iter().position(|b| *b == b'\n') {
            Some(end) if bytes[..end].windows(8).any(|word| word == b" HTTP/1.") => Speech::Http,
            None if bytes.len() <= LONGEST_LINE => Speech::Unclear,
            _ => Speech::Echo,
        };
    }
    let open = could_begin(WHOAMI) || METHODS.iter().any(|method| could_begin(method));
    if open { Speech::Unclear } else { Speech::Echo }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_is_spoken() {
        for (bytes, speech) in [
            (&b""[..], Speech::Unclear),
            (b"GE", Speech::Unclear),
            (b"GET / HT", Speech::Unclear),
            (b"GET / HTTP/1.1\r\n", Speech::Http),
            (b"GET out\n", Speech::Echo),
            (b"weft-", Speech::Unclear),
            (b"weft-whoami\n", Speech::Whoami),
            (b"weft-whoever", Speech::Echo),
            (b"\x16\x03\x01", Speech::Echo),
            (b"get / HTTP/1.1\r\n", Speech::Echo),
        ] {
            assert_eq!(sniff(bytes), speech, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(sniff(&[b"GET ".as_slice(), &[b'a'; 9000]].concat()), Speech::Echo);
    }
}
