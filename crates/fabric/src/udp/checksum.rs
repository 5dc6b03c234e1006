//! The Internet checksum (RFC 1071): a ones' complement sum in host byte order, folded at the end.

/// The sum over `bytes` as if a zero followed an odd end. Sums of parts that begin at even
/// offsets may be added.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<64>();
    // Sixteen sums that do not depend on one another: the compiler makes vectors of them.
    let mut lanes = [0u64; 16];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            // Cannot overflow: no packet is that long. Checked additions would not become vectors.
            *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    let mut total = lanes.iter().fold(0u64, |a, b| a.wrapping_add(*b));
    let (words, odd) = rest.as_chunks::<2>();
    for word in words {
        total += u64::from(u16::from_ne_bytes(*word));
    }
    if let [last] = odd {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// The sum as sixteen bits, not inverted.
pub(crate) fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// What a 16-bit number in network byte order adds.
pub(crate) fn word(value: u16) -> u64 {
    u64::from(value.to_be())
}

/// What the pseudo-header adds: both addresses, protocol and length.
pub(crate) fn pseudo(addresses: &[u8], protocol: u8, len: usize) -> u64 {
    sum(addresses) + word(protocol.into()) + word(len as u16) + word((len >> 16) as u16)
}

/// The checksum field's bytes for a sum.
pub(crate) fn field(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_rfc(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(u16::from_be(fold(sum(&bytes))) % 0xffff, plain(&bytes) % 0xffff);
        }

        #[test]
        fn with_its_field_filled_in_a_message_sums_to_all_ones(mut bytes in proptest::collection::vec(any::<u8>(), 2..90)) {
            bytes[0..2].fill(0);
            let field = field(sum(&bytes));
            bytes[0..2].copy_from_slice(&field);
            prop_assert_eq!(fold(sum(&bytes)), 0xffff);
        }
    }
}
