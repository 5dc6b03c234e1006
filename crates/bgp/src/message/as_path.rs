//! AS_PATH (RFC 4271 4.3, 5065, 6793): the systems that a route came through, the nearest first.

use std::fmt;

use super::open::AS_TRANS;
use super::wire::Reader;

/// What the numbers of a segment mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// Some of these, in no order (of an aggregate).
    Set,
    /// These, one after the other.
    Sequence,
    /// As [`SegmentKind::Sequence`], of members of the own confederation.
    ConfederationSequence,
    /// As [`SegmentKind::Set`], of members of the own confederation.
    ConfederationSet,
}

impl SegmentKind {
    fn from_wire(code: u8) -> Option<SegmentKind> {
        Some(match code {
            1 => SegmentKind::Set,
            2 => SegmentKind::Sequence,
            3 => SegmentKind::ConfederationSequence,
            4 => SegmentKind::ConfederationSet,
            _ => return None,
        })
    }

    fn wire(self) -> u8 {
        match self {
            SegmentKind::Set => 1,
            SegmentKind::Sequence => 2,
            SegmentKind::ConfederationSequence => 3,
            SegmentKind::ConfederationSet => 4,
        }
    }

    fn of_confederation(self) -> bool {
        matches!(self, SegmentKind::ConfederationSequence | SegmentKind::ConfederationSet)
    }
}

/// An AS_PATH, held as it is on a session with four-octet AS numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AsPath(Box<[u8]>);

/// A segment of an [`AsPath`].
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// What its numbers mean.
    pub kind: SegmentKind,
    numbers: &'a [[u8; 4]],
}

impl Segment<'_> {
    /// Its AS numbers.
    pub fn numbers(&self) -> impl DoubleEndedIterator<Item = u32> + ExactSizeIterator {
        self.numbers.iter().map(|octets| u32::from_be_bytes(*octets))
    }

    /// What it adds to the path's length (RFC 4271 9.1.2.2, RFC 5065 5.3).
    fn length(&self) -> usize {
        match self.kind {
            SegmentKind::Sequence => self.numbers.len(),
            SegmentKind::Set => 1,
            SegmentKind::ConfederationSequence | SegmentKind::ConfederationSet => 0,
        }
    }
}

impl AsPath {
    /// One of a single sequence; empty without numbers.
    pub fn sequence(numbers: &[u32]) -> AsPath {
        let mut octets = Vec::with_capacity(numbers.len() * 4 + 2);
        for part in numbers.chunks(usize::from(u8::MAX)) {
            octets.extend([SegmentKind::Sequence.wire(), part.len() as u8]);
            octets.extend(part.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        AsPath(octets.into())
    }

    /// `None` where it is malformed: a kind that there is not, a segment without numbers or beyond the end, AS 0
    /// (RFC 7607).
    pub(super) fn decode(value: &[u8], four_octet: bool) -> Option<AsPath> {
        let mut rest = Reader(value);
        let mut path = Vec::with_capacity(if four_octet { value.len() } else { value.len() * 2 });
        while !rest.is_empty() {
            let (kind, count) = (rest.u8()?, rest.u8()?);
            SegmentKind::from_wire(kind).filter(|_| count > 0)?;
            path.extend([kind, count]);
            for _ in 0..count {
                let asn = if four_octet { rest.u32()? } else { rest.u16()?.into() };
                if asn == 0 {
                    return None;
                }
                path.extend(asn.to_be_bytes());
            }
        }
        Some(AsPath(path.into()))
    }

    /// Appends it as a session without four-octet AS numbers has it.
    pub(super) fn encode_short(&self, out: &mut Vec<u8>) {
        for segment in self.segments() {
            out.extend([segment.kind.wire(), segment.numbers.len() as u8]);
            let short = |asn| u16::try_from(asn).unwrap_or(AS_TRANS);
            out.extend(segment.numbers().flat_map(|asn| short(asn).to_be_bytes()));
        }
    }

    /// Whether two octets cannot say all of it.
    pub(super) fn is_wide(&self) -> bool {
        self.numbers().any(|asn| asn > u32::from(u16::MAX))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its segments, the nearest first.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut rest = Reader(&self.0);
        std::iter::from_fn(move || {
            let kind = SegmentKind::from_wire(rest.u8()?)?;
            let count = usize::from(rest.u8()?);
            let (numbers, _) = rest.take(count * 4)?.as_chunks();
            Some(Segment { kind, numbers })
        })
    }

    /// All AS numbers, the nearest first, those of sets and confederations too.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        self.segments().flat_map(|segment| segment.numbers.iter().map(|octets| u32::from_be_bytes(*octets)))
    }

    /// Whether nothing is in it: the route is of the speaker's own AS.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its length in the decision process: a set counts once, a confederation's segments not at all.
    pub fn length(&self) -> usize {
        self.segments().map(|segment| segment.length()).sum()
    }

    /// The neighbouring AS: the first of the first sequence that is not of the confederation.
    pub fn neighbour(&self) -> Option<u32> {
        let first = self.segments().find(|segment| !segment.kind.of_confederation())?;
        (first.kind == SegmentKind::Sequence).then(|| first.numbers().next())?
    }

    /// The AS that the route came from: the last of the path, where it is of a sequence.
    pub fn origin(&self) -> Option<u32> {
        let last = self.segments().last().filter(|last| last.kind == SegmentKind::Sequence)?;
        last.numbers().next_back()
    }

    /// Whether a segment is of a confederation.
    pub fn has_confederation(&self) -> bool {
        self.segments().any(|segment| segment.kind.of_confederation())
    }

    /// Whether the first segment is a sequence of the confederation, as one of its members sends it.
    pub fn begins_in_confederation(&self) -> bool {
        self.segments().next().is_some_and(|first| first.kind == SegmentKind::ConfederationSequence)
    }

    /// This path with `asn` before it, `times` times.
    pub fn prepend(&self, asn: u32, times: usize) -> AsPath {
        self.prepend_kind(SegmentKind::Sequence, asn, times)
    }

    /// This path as a member `asn` of a confederation tells it to another.
    pub fn prepend_member(&self, asn: u32) -> AsPath {
        self.prepend_kind(SegmentKind::ConfederationSequence, asn, 1)
    }

    fn prepend_kind(&self, kind: SegmentKind, asn: u32, times: usize) -> AsPath {
        let mut path = Vec::with_capacity(self.0.len() + times * 4 + 2);
        let mut rest = &*self.0;
        let mut numbers = vec![asn; times];
        // Into the first segment, as far as that holds more.
        if let Some(first) = self
            .segments()
            .next()
            .filter(|first| first.kind == kind && first.numbers.len() + times <= usize::from(u8::MAX))
        {
            numbers.extend(first.numbers());
            rest = rest.get(2 + first.numbers.len() * 4..).unwrap_or_default();
        }
        for part in numbers.chunks(usize::from(u8::MAX)) {
            path.extend([kind.wire(), part.len() as u8]);
            path.extend(part.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        path.extend(rest);
        AsPath(path.into())
    }

    /// This path without the confederation's segments, as those outside see it.
    pub fn without_confederation(&self) -> AsPath {
        let mut path = Vec::with_capacity(self.0.len());
        for segment in self.segments().filter(|segment| !segment.kind.of_confederation()) {
            path.extend([segment.kind.wire(), segment.numbers.len() as u8]);
            path.extend(segment.numbers.as_flattened());
        }
        AsPath(path.into())
    }

    /// What AS_PATH and AS4_PATH of an old speaker say together (RFC 6793 4.2.3): the four-octet numbers, and
    /// before them what only the AS_PATH has.
    pub(super) fn merged(&self, four: &AsPath) -> AsPath {
        let four = four.without_confederation();
        let Some(mut more) = self.length().checked_sub(four.length()) else { return self.clone() };
        let mut path = Vec::with_capacity(self.0.len());
        for segment in self.segments() {
            let take = match segment.kind {
                SegmentKind::Sequence => segment.numbers.len().min(more),
                SegmentKind::Set if more == 0 => 0,
                // One that counts nothing stays before what is still to come.
                kind if kind.of_confederation() && more == 0 && !path.is_empty() => 0,
                _ => segment.numbers.len(),
            };
            if take == 0 {
                break;
            }
            more -= segment.length().min(more);
            path.extend([segment.kind.wire(), take as u8]);
            path.extend(segment.numbers.iter().take(take).flatten());
        }
        path.extend(&*four.0);
        AsPath(path.into())
    }
}

impl fmt::Display for AsPath {
    /// As routers print it: sets in braces, a confederation's members in parentheses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.segments().enumerate() {
            let (open, close) = match segment.kind {
                SegmentKind::Sequence => ("", ""),
                SegmentKind::Set => ("{", "}"),
                SegmentKind::ConfederationSequence => ("(", ")"),
                SegmentKind::ConfederationSet => ("[", "]"),
            };
            let numbers: Vec<String> = segment.numbers().map(|asn| asn.to_string()).collect();
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{open}{}{close}", numbers.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(segments: &[(u8, &[u32])]) -> AsPath {
        let mut octets = Vec::new();
        for (kind, numbers) in segments {
            octets.extend([*kind, numbers.len() as u8]);
            octets.extend(numbers.iter().flat_map(|asn| asn.to_be_bytes()));
        }
        AsPath::decode(&octets, true).unwrap()
    }

    #[test]
    fn its_length_counts_a_set_once_and_a_confederation_not_at_all() {
        let path = path(&[(3, &[65001, 65002]), (2, &[1, 2, 3]), (1, &[4, 5])]);
        assert_eq!(path.length(), 4);
        assert_eq!((path.neighbour(), path.origin()), (Some(1), None));
        assert_eq!(path.to_string(), "(65001 65002) 1 2 3 {4 5}");
        assert_eq!(path.without_confederation().to_string(), "1 2 3 {4 5}");
        assert!(path.begins_in_confederation() && path.has_confederation());
    }

    #[test]
    fn prepending_fills_the_first_sequence_and_begins_another_when_that_is_full() {
        assert_eq!(AsPath::default().prepend(7, 2).to_string(), "7 7");
        assert_eq!(AsPath::sequence(&[1]).prepend(7, 1), AsPath::sequence(&[7, 1]));
        let full = AsPath::sequence(&[9; 255]).prepend(7, 1);
        assert_eq!(full.segments().map(|s| s.numbers().len()).collect::<Vec<_>>(), [1, 255]);
        assert_eq!(full.length(), 256);
        assert_eq!(path(&[(1, &[4])]).prepend(7, 1).to_string(), "7 {4}");
        assert_eq!(AsPath::sequence(&[1]).prepend_member(65001).to_string(), "(65001) 1");
    }

    #[test]
    fn what_an_old_speaker_tells_is_merged() {
        let old = |numbers: &[u32]| AsPath::sequence(numbers);
        let trans = u32::from(AS_TRANS);
        assert_eq!(old(&[1, trans, 3]).merged(&old(&[70000, 3])), path(&[(2, &[1]), (2, &[70000, 3])]));
        assert_eq!(old(&[trans]).merged(&old(&[70000])), old(&[70000]));
        // A longer AS4_PATH than AS_PATH is none.
        assert_eq!(old(&[1]).merged(&old(&[70000, 3])), old(&[1]));
        let with_set = path(&[(2, &[1, trans]), (1, &[5, 6])]);
        assert_eq!(with_set.merged(&path(&[(1, &[5, 70000])])).to_string(), "1 23456 {5 70000}");
        // A confederation's segments stay, those of the AS4_PATH do not.
        let inside = path(&[(3, &[65001]), (2, &[trans])]);
        assert_eq!(inside.merged(&path(&[(3, &[9]), (2, &[70000])])).to_string(), "(65001) 70000");
    }

    #[test]
    fn malformed_ones_are_not_read() {
        for bad in [&[2, 0][..], &[5, 1, 0, 0, 0, 1], &[2, 2, 0, 0, 0, 1], &[2], &[2, 1, 0, 0, 0, 0], &[0, 1]]
        {
            assert_eq!(AsPath::decode(bad, true), None, "{bad:?}");
        }
        assert_eq!(AsPath::decode(&[2, 2, 0, 1, 0, 2], false), Some(AsPath::sequence(&[1, 2])));
    }
}
