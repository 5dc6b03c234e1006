//! UPDATEs to be sent: as many prefixes in each as fit.

use super::attributes::{Attributes, NextHop, code, flag};
use super::nlri::{self, Nlri};
use super::{HEADER, Kind, Negotiated, finish, reach, start};
use crate::Family;

/// The attributes of a route do not fit into a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attributes of {0} bytes leave no room for a prefix")]
pub struct TooLong(pub usize);

/// The longest prefix with its number, in bytes.
const PREFIX: usize = 4 + 1 + 16;
/// What surrounds a list of prefixes in its own attribute or field, at most.
const AROUND: usize = 2 + 2 + 4 + 5 + 33;

/// Appends UPDATEs that announce `routes`, all of one family, with these attributes.
pub fn announce(
    out: &mut Vec<u8>,
    terms: &Negotiated,
    attributes: &Attributes,
    family: Family,
    routes: impl IntoIterator<Item = Nlri>,
) -> Result<(), TooLong> {
    let classic = family == Family::Ipv4 && matches!(attributes.next_hop, NextHop::V4(_));
    let mut section = Vec::with_capacity(64);
    attributes.encode(&mut section, terms.four_octet_as, classic);
    let room = terms.longest().saturating_sub(HEADER + AROUND + section.len());
    if room < PREFIX {
        return Err(TooLong(section.len()));
    }
    let mut routes = routes.into_iter().peekable();
    while routes.peek().is_some() {
        let at = start(out, Kind::Update);
        out.extend([0, 0]);
        let lengths = out.len();
        out.extend([0, 0]);
        if classic {
            out.extend(&section);
            put_length(out, lengths);
            fill(out, terms, room, &mut routes);
        } else {
            // First of all, as RFC 7606 5.1 has it: who reads on to an error knows which routes it is of.
            out.extend([flag::OPTIONAL | flag::EXTENDED, code::MP_REACH]);
            let length = out.len();
            out.extend([0, 0]);
            out.extend(reach::head(family, attributes.next_hop));
            fill(out, terms, room, &mut routes);
            put_length(out, length);
            out.extend(&section);
            put_length(out, lengths);
        }
        finish(out, at);
    }
    Ok(())
}

/// Appends UPDATEs that withdraw `routes`, all of one family.
pub fn withdraw(
    out: &mut Vec<u8>,
    terms: &Negotiated,
    family: Family,
    routes: impl IntoIterator<Item = Nlri>,
) {
    let room = terms.longest() - HEADER - AROUND;
    let mut routes = routes.into_iter().peekable();
    while routes.peek().is_some() {
        let at = start(out, Kind::Update);
        let mut prefixes = Vec::new();
        fill(&mut prefixes, terms, room, &mut routes);
        match family {
            Family::Ipv4 => {
                out.extend((prefixes.len() as u16).to_be_bytes());
                out.extend(prefixes);
                out.extend([0, 0]);
            }
            Family::Ipv6 => put_unreach(out, &prefixes),
        }
        finish(out, at);
    }
}

/// Appends the End-of-RIB of a family (RFC 4724).
pub fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    let at = start(out, Kind::Update);
    match family {
        Family::Ipv4 => out.extend([0; 4]),
        Family::Ipv6 => put_unreach(out, &[]),
    }
    finish(out, at);
}

fn put_unreach(out: &mut Vec<u8>, prefixes: &[u8]) {
    out.extend([0, 0]);
    let lengths = out.len();
    out.extend([0, 0]);
    reach::put_withdrawn(out, Family::Ipv6, prefixes);
    put_length(out, lengths);
}

/// Appends prefixes while the longest would still fit.
fn fill(out: &mut Vec<u8>, terms: &Negotiated, room: usize, routes: &mut impl Iterator<Item = Nlri>) {
    let end = out.len() + room - PREFIX;
    while out.len() <= end
        && let Some(route) = routes.next()
    {
        nlri::write(out, &route, terms.add_path_out[Family::of(&route.prefix)]);
    }
}

/// Writes to the two bytes at `at` how much comes after them.
fn put_length(out: &mut [u8], at: usize) {
    let length = (out.len() - at - 2) as u16;
    if let Some(field) = out.get_mut(at..at + 2) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
