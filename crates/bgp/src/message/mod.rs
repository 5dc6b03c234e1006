//! BGP's messages. [`frame`] cuts a stream into messages, [`Message::decode`] reads one by the terms of its session.
//!
//! Nothing is believed for its length: reading takes time and memory in proportion to the bytes that are there.
//! Routes are read where they lie.

mod as_path;
mod attributes;
mod capability;
mod community;
mod decode;
mod fault;
mod nlri;
mod notification;
mod open;
mod reach;
mod update;
mod wire;
mod write;

#[cfg(test)]
mod tests;

use std::net::Ipv4Addr;

pub use as_path::{AsPath, Segment, SegmentKind};
pub use attributes::{Aggregator, Attributes, NextHop, Origin, Unknown};
pub use capability::{AddPath, Capabilities, GracefulRestart, LongLived, RESTART_TIME, STALE_TIME};
pub use community::{Community, ExtendedCommunity, LargeCommunity, NoCommunity};
pub use fault::{Action, Fault, Malformed};
pub use nlri::{Nlri, NlriList};
pub use notification::{Notification, Reason, SHUTDOWN_TEXT};
pub use open::{AS_TRANS, Open};
pub use update::Update;
pub(crate) use wire::Reader;
pub use write::{TooLong, announce, end_of_rib, withdraw};

use crate::{Family, PerFamily};

/// The length of a message's head.
pub const HEADER: usize = 19;
/// The longest message.
pub const LONGEST: usize = 4096;
/// The longest message between speakers that agreed on longer ones (RFC 8654).
pub const LONGEST_EXTENDED: usize = 65535;

/// How a peer's AS stands to one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Relation {
    /// Another AS.
    External,
    /// The same AS.
    Internal,
    /// Another member of the same confederation (RFC 5065).
    Confederation,
}

/// What two speakers agreed on by their OPENs, from one's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub peer_as: u32,
    /// The peer's BGP identifier.
    pub peer_id: Ipv4Addr,
    /// How the peer's AS stands to one's own.
    pub relation: Relation,
    /// Hold time in seconds; 0: no keepalives.
    pub hold: u16,
    /// Families that routes may be of.
    pub families: PerFamily<bool>,
    /// AS numbers have four octets.
    pub four_octet_as: bool,
    /// IPv4 routes may have IPv6 next hops.
    pub extended_next_hop: bool,
    /// Messages may be as long as [`LONGEST_EXTENDED`].
    pub extended_messages: bool,
    /// What the peer sends has path numbers.
    pub add_path_in: PerFamily<bool>,
    /// What the peer is sent has path numbers.
    pub add_path_out: PerFamily<bool>,
    /// The peer sends its routes again when asked.
    pub route_refresh: bool,
    /// And both mark beginning and end of that.
    pub enhanced_refresh: bool,
    /// What the peer says of its restarts, where both do that.
    pub graceful_restart: Option<GracefulRestart>,
    /// And of long-lived ones.
    pub long_lived: PerFamily<Option<LongLived>>,
}

impl Negotiated {
    /// What is agreed on by these two OPENs; `relation` is how `theirs` stands to `ours`.
    pub fn new(ours: &Open, theirs: &Open, relation: Relation) -> Negotiated {
        let (a, b) = (&ours.capabilities, &theirs.capabilities);
        let spoken = |of: &Capabilities| of.families.unwrap_or(PerFamily { ipv4: true, ipv6: false });
        let families = PerFamily::from_fn(|family| spoken(a)[family] && spoken(b)[family]);
        let graceful_restart = b.graceful_restart.filter(|_| a.graceful_restart.is_some());
        let long_lived = PerFamily::from_fn(|family| {
            b.long_lived[family].filter(|_| graceful_restart.is_some() && a.long_lived[family].is_some())
        });
        Negotiated {
            peer_as: theirs.asn,
            peer_id: theirs.id,
            relation,
            hold: ours.hold.min(theirs.hold),
            families,
            four_octet_as: a.four_octet_as.is_some() && b.four_octet_as.is_some(),
            extended_next_hop: a.extended_next_hop && b.extended_next_hop,
            extended_messages: a.extended_messages && b.extended_messages,
            add_path_in: PerFamily::from_fn(|family| a.add_path[family].receive && b.add_path[family].send),
            add_path_out: PerFamily::from_fn(|family| a.add_path[family].send && b.add_path[family].receive),
            route_refresh: b.route_refresh,
            enhanced_refresh: a.enhanced_refresh && b.enhanced_refresh,
            graceful_restart,
            long_lived,
        }
    }

    /// The longest message.
    pub fn longest(&self) -> usize {
        if self.extended_messages { LONGEST_EXTENDED } else { LONGEST }
    }
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// OPEN.
    Open = 1,
    /// UPDATE.
    Update = 2,
    /// NOTIFICATION.
    Notification = 3,
    /// KEEPALIVE.
    Keepalive = 4,
    /// ROUTE-REFRESH (RFC 2918).
    Refresh = 5,
}

/// A message that is not read yet.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// What it is.
    pub kind: Kind,
    /// What comes after its head.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// The length of the message, its head included.
    pub fn length(&self) -> usize {
        HEADER + self.body.len()
    }
}

/// The message at the beginning of a stream; `None` until all of it is there. `extended`: it may be a long one.
pub fn frame(stream: &[u8], extended: bool) -> Result<Option<Frame<'_>>, Notification> {
    let mut rest = Reader(stream);
    let marker = rest.0.get(..16).unwrap_or(rest.0);
    if marker.iter().any(|octet| *octet != u8::MAX) {
        return Err(Reason::NOT_SYNCHRONISED.into());
    }
    let (Some(_), Some(length), Some(kind)) = (rest.take(16), rest.u16(), rest.u8()) else { return Ok(None) };
    let bad_length = || Notification::new(Reason::BAD_LENGTH, &length.to_be_bytes());
    // A length that no message has says more than a type that there is not.
    if usize::from(length) < HEADER || usize::from(length) > LONGEST && !extended {
        return Err(bad_length());
    }
    let kinds = [Kind::Open, Kind::Update, Kind::Notification, Kind::Keepalive, Kind::Refresh];
    let Some(kind) = kinds.into_iter().find(|known| *known as u8 == kind) else {
        return Err(Notification::new(Reason::BAD_TYPE, &[kind]));
    };
    let body = usize::from(length) - HEADER;
    let possible = match kind {
        Kind::Open => (10..=LONGEST - HEADER).contains(&body),
        Kind::Update => body >= 4,
        Kind::Notification => body >= 2,
        Kind::Keepalive => body == 0,
        Kind::Refresh => body >= 4,
    };
    if !possible {
        return Err(bad_length());
    }
    Ok(rest.take(body).map(|body| Frame { kind, body }))
}

/// What a ROUTE-REFRESH is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshKind {
    /// The routes are to be sent again.
    Request,
    /// They are sent again from here (RFC 7313) ...
    Begin,
    /// ... to here.
    End,
}

/// A message.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for a call, and most messages are UPDATEs")]
pub enum Message<'a> {
    /// OPEN.
    Open(Open),
    /// UPDATE.
    Update(Update<'a>),
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH; `None` for a family or a kind that is not known, which is to be ignored.
    Refresh(Option<(Family, RefreshKind)>),
}

impl<'a> Message<'a> {
    /// Reads a message. Without `terms`, before the OPENs, UPDATEs are out of place.
    pub fn decode(frame: &Frame<'a>, terms: Option<&Negotiated>) -> Result<Message<'a>, Notification> {
        Ok(match (frame.kind, terms) {
            (Kind::Open, _) => Message::Open(Open::decode(frame.body)?),
            (Kind::Update, Some(terms)) => Message::Update(Update::decode(frame.body, terms)?),
            (Kind::Update, None) => return Err(Reason::IN_OPEN_SENT.into()),
            (Kind::Notification, _) => {
                Message::Notification(Notification::decode(frame.body).ok_or(Reason::BAD_LENGTH)?)
            }
            (Kind::Keepalive, _) => Message::Keepalive,
            (Kind::Refresh, terms) => Message::Refresh(decode_refresh(frame, terms)?),
        })
    }
}

fn decode_refresh(
    frame: &Frame<'_>,
    terms: Option<&Negotiated>,
) -> Result<Option<(Family, RefreshKind)>, Notification> {
    let mut body = Reader(frame.body);
    let (Some(afi), Some(subtype), Some(safi)) = (body.u16(), body.u8(), body.u8()) else {
        return Err(Reason::REFRESH_LENGTH.into());
    };
    let enhanced = terms.is_some_and(|terms| terms.enhanced_refresh);
    let kind = match subtype {
        0 => RefreshKind::Request,
        1 if enhanced => RefreshKind::Begin,
        2 if enhanced => RefreshKind::End,
        _ => return Ok(None),
    };
    if !body.is_empty() {
        let mut whole = Vec::new();
        let at = start(&mut whole, Kind::Refresh);
        whole.extend(frame.body);
        finish(&mut whole, at);
        return Err(Notification::new(Reason::REFRESH_LENGTH, &whole));
    }
    let family =
        Family::from_wire(afi, safi).filter(|family| terms.is_none_or(|terms| terms.families[*family]));
    Ok(family.map(|family| (family, kind)))
}

/// Appends an OPEN.
pub fn open(out: &mut Vec<u8>, open: &Open) {
    let at = start(out, Kind::Open);
    open.encode(out);
    finish(out, at);
}

/// Appends a NOTIFICATION.
pub fn notification(out: &mut Vec<u8>, notification: &Notification) {
    let at = start(out, Kind::Notification);
    notification.encode(out);
    // What it quotes must not make it longer than a message may be.
    out.truncate(at + LONGEST);
    finish(out, at);
}

/// Appends a KEEPALIVE.
pub fn keepalive(out: &mut Vec<u8>) {
    let at = start(out, Kind::Keepalive);
    finish(out, at);
}

/// Appends a ROUTE-REFRESH.
pub fn refresh(out: &mut Vec<u8>, family: Family, kind: RefreshKind) {
    let at = start(out, Kind::Refresh);
    let (afi, safi) = family.wire();
    out.extend(afi.to_be_bytes());
    out.extend([kind as u8, safi]);
    finish(out, at);
}

/// Appends a head, whose length `finish` fills in.
fn start(out: &mut Vec<u8>, kind: Kind) -> usize {
    let at = out.len();
    out.extend([u8::MAX; 16]);
    out.extend([0, 0, kind as u8]);
    at
}

fn finish(out: &mut [u8], at: usize) {
    let length = (out.len() - at) as u16;
    if let Some(field) = out.get_mut(at + 16..at + 18) {
        field.copy_from_slice(&length.to_be_bytes());
    }
}
