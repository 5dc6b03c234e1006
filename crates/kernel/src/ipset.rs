//! Sets of netfilter's older kind (ipset), which are only read and removed here.

use std::collections::BTreeSet;

use crate::nft::wire::{Attributes, Body, F_ACK, F_DUMP};
use crate::nft::{Family, Nft};
use crate::{Error, Result};

/// `NFNL_SUBSYS_IPSET` in the high byte, `IPSET_CMD_DESTROY` and `IPSET_CMD_LIST`.
const DESTROY: u16 = 6 << 8 | 3;
const LIST: u16 = 6 << 8 | 7;
/// `IPSET_ATTR_*`: of a set, and of an element.
const PROTOCOL: u16 = 1;
const NAME: u16 = 2;
const DATA: u16 = 7;
const ELEMENTS: u16 = 8;
const PORT: u16 = 4;
/// The protocol's version that every kernel knows.
const VERSION: u8 = 6;
/// `IPSET_ERR_BUSY`.
const BUSY: i32 = 4100;

/// The ports of a set's elements; none where there is no such set.
pub fn ports(name: &str) -> Result<BTreeSet<u16>> {
    let mut found = BTreeSet::new();
    let result =
        Nft::open()?.request_each(LIST, F_DUMP, Family::Ip, &question(name), &what(name), |_, data| {
            let elements = Attributes(data).nested(ELEMENTS).filter(|(kind, _)| *kind == DATA);
            let port =
                elements.filter_map(|(_, element)| Attributes(element).get(PORT)?.first_chunk().copied());
            found.extend(port.map(u16::from_be_bytes));
            true
        });
    match result {
        Err(error) if !is_missing(&error) => Err(error),
        _ => Ok(found),
    }
}

/// Removes a set where there is one; says whether it is gone, which it is not while a rule names it.
pub fn destroy(name: &str) -> Result<bool> {
    match Nft::open()?.request(DESTROY, F_ACK, Family::Ip, &question(name), &what(name)) {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(true),
        Err(error) if error.errno() == Some(BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

fn question(name: &str) -> Vec<u8> {
    let mut body = Body::default();
    body.bytes(PROTOCOL, &[VERSION]).text(NAME, name);
    body.0
}

fn what(name: &str) -> String {
    format!("set {name}")
}

/// EINVAL where the kernel has no such sets at all.
fn is_missing(error: &Error) -> bool {
    error.not_found() || error.errno() == Some(libc::EINVAL)
}
