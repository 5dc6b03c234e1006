//! Two connections at once (RFC 4271 6.8, RFC 6286 2.3).

use super::config::Side;
use crate::message::Open;

/// The connection to keep: the one that the speaker with the higher identifier dialled.
pub(super) fn keep(ours: &Open, theirs: &Open) -> Side {
    match (ours.id, ours.asn) > (theirs.id, theirs.asn) {
        true => Side::Dialled,
        false => Side::Accepted,
    }
}
