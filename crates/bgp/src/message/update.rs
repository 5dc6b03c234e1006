//! UPDATE: routes that are announced and routes that are withdrawn.

use super::Negotiated;
use super::attributes::{Attributes, NextHop, code};
use super::decode::Section;
use super::fault::{Action, Fault, Malformed};
use super::nlri::NlriList;
use super::notification::{Notification, Reason};
use super::reach::Reach;
use super::wire::Reader;
use crate::Family;

/// An UPDATE message, read as RFC 7606 wants it: what is announced with attributes that are not to be believed is
/// among what is withdrawn.
#[derive(Debug)]
pub struct Update<'a> {
    withdrawn: [Option<NlriList<'a>>; 4],
    announced: [Option<(NextHop, NlriList<'a>)>; 2],
    attributes: Attributes,
    /// What was wrong with it; of very many not all.
    pub malformed: Vec<Malformed>,
    /// It says that all routes of this family have been told (RFC 4724).
    pub end_of_rib: Option<Family>,
}

impl<'a> Update<'a> {
    /// What is withdrawn. Comes before what is announced.
    pub fn withdrawn(&self) -> impl Iterator<Item = NlriList<'a>> + use<'a> {
        self.withdrawn.into_iter().flatten()
    }

    /// What is announced: at most two lists, one of prefixes with the NEXT_HOP and one with that of MP_REACH_NLRI.
    pub fn into_announced(self) -> impl Iterator<Item = (Attributes, NlriList<'a>)> {
        let mut attributes = Some(self.attributes);
        let last = self.announced.into_iter().flatten().count();
        let lists = self.announced.into_iter().flatten().zip(1..);
        lists.filter_map(move |((next_hop, routes), number)| {
            let of = if number == last { attributes.take() } else { attributes.clone() };
            Some((Attributes { next_hop, ..of? }, routes))
        })
    }

    /// Reads the body of an UPDATE. An error is one that ends the session.
    pub(super) fn decode(body: &'a [u8], terms: &Negotiated) -> Result<Update<'a>, Notification> {
        let mut body = Reader(body);
        let list = || Notification::from(Reason::ATTRIBUTE_LIST);
        let field = |body: &mut Reader<'a>| body.u16().and_then(|length| body.take(length.into()));
        let withdrawn = field(&mut body).ok_or_else(list)?;
        let section = field(&mut body).ok_or_else(list)?;
        let classic =
            |bytes| NlriList::new(bytes, Family::Ipv4, terms.add_path_in.ipv4).ok_or(Reason::NETWORK);
        let (withdrawn, announced) = (classic(withdrawn)?, classic(body.0)?);
        if section.is_empty() && withdrawn.is_empty() && announced.is_empty() {
            return Ok(Update { end_of_rib: Some(Family::Ipv4), ..Update::empty() });
        }
        let section = Section::decode(section, terms)?;
        Update::of(section, withdrawn, announced, terms)
    }

    fn of(
        mut section: Section<'a>,
        withdrawn: NlriList<'a>,
        announced: NlriList<'a>,
        terms: &Negotiated,
    ) -> Result<Update<'a>, Notification> {
        let other = matches!(section.reach, Some(Reach::Other));
        let reach = match section.reach.take() {
            Some(Reach::Routes(next_hop, routes)) if !routes.is_empty() => Some((next_hop, routes)),
            _ => None,
        };
        let reaches = !announced.is_empty() || reach.is_some();
        if reaches {
            missing(&mut section, !announced.is_empty());
        }
        if let (Some(next_hop), false) = (section.next_hop, announced.is_empty())
            && !next_hop.is_possible()
        {
            section.faults.add(code::NEXT_HOP, Fault::NextHop, Action::Withdraw);
        }
        if let Some((next_hop, _)) = reach
            && !next_hop.is_possible()
        {
            section.faults.add(code::MP_REACH, Fault::NextHop, Action::Withdraw);
        }
        let ends = section.unreach.is_some_and(|routes| routes.is_empty());
        let withdraws = section.faults.worst == Some(Action::Withdraw);
        // Whether these were all its routes cannot be known (RFC 7606 5.2).
        if withdraws && !reaches && !other && section.seen.tells_routes() {
            return Err(Reason::ATTRIBUTE_LIST.into());
        }
        let spoken = |routes: &NlriList<'_>| terms.families[routes.family()] && !routes.is_empty();
        let announced = Some(announced).filter(spoken);
        let classic = section.next_hop.zip(announced);
        let lone = ends && withdrawn.is_empty() && !reaches && !section.seen.tells_routes();
        let end_of_rib = section.unreach.filter(|_| lone).map(|routes| routes.family());
        let gone = |routes: Option<NlriList<'a>>| routes.filter(spoken);
        let mut update = Update {
            withdrawn: [gone(Some(withdrawn)), gone(section.unreach), None, None],
            announced: [classic, reach],
            attributes: section.attributes,
            malformed: section.faults.told,
            end_of_rib,
        };
        if withdraws {
            update.announced = [None, None];
            update.withdrawn =
                [gone(Some(withdrawn)), gone(section.unreach), announced, reach.map(|(_, routes)| routes)];
        }
        Ok(update)
    }

    fn empty() -> Update<'a> {
        Update {
            withdrawn: [None; 4],
            announced: [None, None],
            attributes: Attributes::new(NextHop::V4(std::net::Ipv4Addr::UNSPECIFIED)),
            malformed: Vec::new(),
            end_of_rib: None,
        }
    }
}

/// Routes have these, and those at the message's end a NEXT_HOP.
fn missing(section: &mut Section<'_>, classic: bool) {
    for (code, needed) in [(code::ORIGIN, true), (code::AS_PATH, true), (code::NEXT_HOP, classic)] {
        if needed && !section.seen.has(code) {
            section.faults.add(code, Fault::Missing, Action::Withdraw);
        }
    }
}
