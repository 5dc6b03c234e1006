//! The text of our records and of the reference's address files.

use std::net::IpAddr;

/// The addresses of an attachment, as its record lists them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) addresses: Vec<IpAddr>,
}

impl Record {
    /// One line for each address. The word before it keeps the text from being a container ID,
    /// by which the reference's DEL would take the record for an address file.
    pub(crate) fn text(&self) -> String {
        self.addresses.iter().map(|ip| format!("address {ip}\n")).collect()
    }

    /// Lines that are none of ours are passed over: a record is checked before it is believed.
    pub(crate) fn parse(bytes: &[u8]) -> Record {
        let text = String::from_utf8_lossy(bytes);
        let address = |line: &str| line.strip_prefix("address ")?.parse().ok();
        Record { addresses: text.lines().filter_map(address).collect() }
    }
}

/// Container ID and interface in an address file; `None` for one that names no owner.
pub fn owner_of(content: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(content).ok()?.trim();
    let (container_id, ifname) = text.split_once("\r\n").unwrap_or((text, ""));
    (!container_id.is_empty()).then_some((container_id, ifname))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn owners_are_read_as_the_reference_writes_them() {
        assert_eq!(owner_of(b"3f1c\r\neth0"), Some(("3f1c", "eth0")));
        assert_eq!(owner_of(b"old-format"), Some(("old-format", "")));
        assert_eq!(owner_of(b""), None);
        assert_eq!(owner_of(b"\xff\xfe"), None);
    }

    proptest! {
        #[test]
        fn records_round_trip_and_garbage_is_read_as_nothing_or_less(
            v4 in any::<u32>(), v6 in any::<u128>(), garbage in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let addresses: Vec<IpAddr> = vec![IpAddr::V4(v4.into()), IpAddr::V6(v6.into())];
            let record = Record { addresses };
            prop_assert_eq!(Record::parse(record.text().as_bytes()), record);
            Record::parse(&garbage);
            owner_of(&garbage);
        }
    }
}
